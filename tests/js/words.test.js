// How the explorer's module reads names and writes numbers, tokens, colours and ticks; and its life in a notebook.
import assert from "node:assert/strict";
import { test } from "node:test";
import widget, {
  between,
  number,
  parseHead,
  passing,
  placeOnRamp,
  quoted,
  rangeOf,
  ticksOf,
} from "../../induction_kernel/attention_explorer/_static/explorer.js";

test("names of heads", () => {
  for (const name of ["L5H1", "l5h1", "5.1", " L5H1 ", "L5 H1"])
    assert.deepEqual(parseHead(name), [5, 1], name);
  assert.deepEqual(parseHead("L12H10"), [12, 10]);
  for (const name of ["", "L5", "5", "H1L5", "L5H1x", "5.1.2", "-1.2", "L5H"])
    assert.equal(parseHead(name), null, name);
});

test("numbers", () => {
  const written = {
    ".93": 0.93,
    "1.00": 0.9996,
    ".012": 0.012,
    ".0039": 1 / 255,
    ".10": 0.0999,
    0: 0,
    3.14: 3.14159,
    "−.50": -0.5,
    12.3: 12.34,
    1234: 1234.4,
    ".000004": 0.0000038,
  };
  for (const [text, value] of Object.entries(written)) assert.equal(number(value), text);
  assert.deepEqual([null, undefined, NaN, Infinity].map(number), ["–", "–", "–", "–"]);
});

test("tokens stand on one line, and right-to-left ones turn nothing else round", () => {
  assert.equal(quoted(" dax"), '" dax"');
  assert.equal(quoted("a\n\t"), '"a\\n\\t"');
  assert.equal(quoted("שלום"), '\u2068"שלום"\u2069');
});

test("how many heads pass", () => {
  const meaning = ": their excess is beyond what chance brings, which need not be large.";
  assert.equal(passing([1, 0, 1]), `2 of 3 heads pass${meaning}`);
  assert.equal(passing([1, null, 0]), `1 of 3 heads pass (1 could not be tested)${meaning}`);
  assert.equal(passing([null, null]), "No head could be tested.");
});

test("places on the ramp rise from 0 to 1, with a stored weight never on the place of 0", () => {
  for (const shade of ["linear", "square root", "logarithmic"]) {
    assert.equal(placeOnRamp(0, shade), 0);
    assert.equal(placeOnRamp(1, shade), 1);
    assert.equal(placeOnRamp(-1, shade), -1);
    assert.ok(placeOnRamp(1e-7, shade) > 0);
    assert.ok(placeOnRamp(0.2, shade) < placeOnRamp(0.3, shade));
  }
  assert.ok(Math.abs(placeOnRamp(0.01, "logarithmic") - 0.5) < 1e-9);
  assert.equal(placeOnRamp(0.25, "square root"), 0.5);
});

test("colours between stops", () => {
  assert.deepEqual(between(["#000000", "#ffffff"], 0.5), [128, 128, 128]);
  assert.deepEqual(between(["#000000", "#ffffff", "#ff0000"], 1), [255, 0, 0]);
  assert.deepEqual(between(["#102030", "#ffffff"], -1), [16, 32, 48]);
});

test("a score that is negative somewhere is coloured on both sides of 0", () => {
  assert.deepEqual(rangeOf([0.1, null, 0.8]), { low: 0, high: 0.8, signed: false });
  assert.deepEqual(rangeOf([-0.9, 0.3]), { low: -0.9, high: 0.9, signed: true });
  assert.deepEqual(rangeOf([-0.001, 0.9]), { low: 0, high: 0.9, signed: false });
  assert.deepEqual(rangeOf([null, null]), { low: 0, high: 1, signed: false });
});

test("ticks at round numbers", () => {
  assert.deepEqual(ticksOf(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(ticksOf(-0.5, 0.5, 5), [-0.4, -0.2, 0, 0.2, 0.4]);
  assert.deepEqual(ticksOf(37, 412, 4), [100, 200, 300, 400]);
  assert.deepEqual(ticksOf(0, 0, 5), [0]);
});

test("the module loads without a document and offers what anywidget calls", () => {
  assert.equal(typeof document, "undefined");
  assert.equal(typeof widget.render, "function");
});
