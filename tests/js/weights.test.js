// What the explorer's module computes from bytes: weights, pooling, products with value norms, differences, votes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import * as explorer from "../../induction_kernel/attention_explorer/_static/explorer.js";

const {
  Matrix,
  average,
  difference,
  furthest,
  inflate,
  largest,
  ranked,
  pool,
  poolThumbnail,
  strongestIn,
  unpackHead,
  valueWeighted,
  votes,
} = explorer;
const PLAIN = { precision: "plain", ahead: false, norms: false };
const near = (got, wanted, by = 1e-6) =>
  wanted.forEach((value, i) => assert.ok(Math.abs(got[i] - value) <= by, `${got[i]} for ${value}`));
const whole = (n) => ({ x: 0, y: 0, span: n });

/** A lower triangle of the given size with what `entry(query, key)` says. */
const triangle = (n, entry) => {
  const codes = new Float32Array((n * (n + 1)) / 2);
  for (let query = 0; query < n; query++)
    for (let key = 0; key <= query; key++) codes[(query * (query + 1)) / 2 + key] = entry(query, key);
  return new Matrix({ n, ahead: false, codes });
};

test("deflated bytes are inflated", async () => {
  const bytes = Uint8Array.from({ length: 10000 }, (_, i) => (i * i) % 251);
  assert.deepEqual(await inflate(new Uint8Array(deflateSync(bytes))), bytes);
});

test("entries are byte / 255, then come each query's rounded-away mass and norms in float16", () => {
  const bytes = Uint8Array.of(255, 51, 204, 0, 0, 255, 0, 0, 51, 0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00);
  const head = unpackHead(bytes, 3, { ...PLAIN, norms: true });
  near(head.entries, [1, 0.2, 0.8, 0, 0, 1]);
  near(head.mass, [0, 0, 0.2]);
  near(head.norms, [1, -2, 2 ** -24], 0);
  near([head.at(1, 0), head.at(1, 1), head.at(2, 2), head.at(0, 2)], [0.2, 0.8, 1, 0]);
  near(head.row(1), [0.2, 0.8, 0]);
  near(head.column(0), [1, 0.2, 0]);
});

test("fine entries are squares of bytes; float16 has no mass; whole matrices have later keys", () => {
  near(unpackHead(Uint8Array.of(255, 51, 0, 0, 0), 2, { ...PLAIN, precision: "fine" }).entries, [1, 0.04, 0]);
  const half = unpackHead(Uint8Array.of(0x00, 0x3c, 0x00, 0x38, 0x66, 0x2e), 2, {
    ...PLAIN,
    precision: "half",
  });
  near(half.entries, [1, 0.5, 0.1], 1e-4);
  assert.equal(half.mass, null);
  const ahead = unpackHead(Uint8Array.of(0, 255, 51, 204, 0, 0), 2, { ...PLAIN, ahead: true });
  near(ahead.row(0), [0, 1]);
  near(ahead.column(1), [1, 0.8]);
});

test("bytes of a view that begins within a buffer are read from there", () => {
  const inside = new Uint8Array(Uint8Array.of(9, 9, 9, 0x00, 0x3c, 0x00, 0x38, 0x00, 0x00).buffer, 3);
  near(unpackHead(inside, 2, { ...PLAIN, precision: "half" }).entries, [1, 0.5, 0]);
});

test("bytes of another length are refused", () => {
  assert.throws(
    () => unpackHead(new Uint8Array(7), 3, PLAIN),
    /a head of 3 tokens takes 9 bytes, these are 7/,
  );
});

test("a prompt of one token", () => {
  const head = unpackHead(Uint8Array.of(255, 0), 1, PLAIN);
  near(pool(head, whole(1), 3), Array(9).fill(1));
});

test("pooling leaves out no cell, however many fall on a pixel", () => {
  const n = 1000;
  for (const [query, key] of [
    [0, 0],
    [999, 0],
    [999, 999],
    [517, 333],
    [501, 500],
  ]) {
    const pooled = pool(
      triangle(n, (q, k) => (q === query && k === key ? 0.7 : 0)),
      whole(n),
      64,
    );
    near([Math.max(...pooled.filter((value) => !Number.isNaN(value)))], [0.7]);
    near([pooled[Math.floor((query * 64) / n) * 64 + Math.floor((key * 64) / n)]], [0.7]);
  }
});

test("pooled pixels are the largest of their cells in every window, as a slow loop finds them", () => {
  const n = 61;
  const matrix = triangle(n, (q, k) => ((q * 31 + k * 17) % 97) / 97);
  for (const [win, side] of [
    [whole(n), 20],
    [{ x: 3.4, y: 20.7, span: 37.5 }, 16],
    [{ x: 10, y: 30, span: 30 }, 29],
  ]) {
    const wanted = new Float32Array(side * side).fill(NaN);
    for (let q = 0; q < n; q++) {
      for (let k = 0; k <= q; k++) {
        if (
          q < Math.floor(win.y) ||
          k < Math.floor(win.x) ||
          q >= Math.ceil(win.y + win.span) ||
          k >= Math.ceil(win.x + win.span)
        )
          continue;
        const [y, x] = [q - win.y, k - win.x].map((at) =>
          Math.min(side - 1, Math.max(0, Math.floor(((at + 0.5) * side) / win.span))),
        );
        if (!(wanted[y * side + x] >= matrix.at(q, k))) wanted[y * side + x] = matrix.at(q, k);
      }
    }
    assert.deepEqual(pool(matrix, win, side), wanted);
  }
});

test("a magnified window shows each cell as a block, and nothing where there is no key yet", () => {
  const pixels = pool(
    triangle(2, (q, k) => q + k + 1),
    whole(2),
    4,
  );
  assert.deepEqual([...pixels], [1, 1, NaN, NaN, 1, 1, NaN, NaN, 2, 2, 3, 3, 2, 2, 3, 3]);
});

test("of signed entries the one of largest size is drawn", () => {
  const pooled = pool(
    new Matrix({ n: 2, ahead: true, codes: Float32Array.of(0.1, -0.5, 0.2, 0.3) }),
    whole(2),
    1,
  );
  near(pooled, [-0.5]);
});

test("a thumbnail keeps its stripes when it is drawn smaller", () => {
  const bytes = new Uint8Array(64 * 64);
  for (let q = 0; q < 64; q++) bytes[q * 64 + 13] = 200;
  const pixels = poolThumbnail(bytes, 64, 10);
  for (let q = 0; q < 10; q++) near(pixels.subarray(q * 10, q * 10 + 10), [0, 0, 200, 0, 0, 0, 0, 0, 0, 0]);
});

test("weights times value norms are shares of the largest product", () => {
  const head = new Matrix({
    n: 2,
    ahead: false,
    codes: Float32Array.of(1, 0.25, 0.75),
    norms: Float32Array.of(2, 4),
  });
  near(valueWeighted(head).entries, [2 / 3, 0.5 / 3, 1]);
  const nothing = new Matrix({
    n: 2,
    ahead: false,
    codes: Float32Array.of(1, 0.25, 0.75),
    norms: new Float32Array(2),
  });
  near(valueWeighted(nothing).entries, [0, 0, 0], 0);
});

test("average and difference of heads", () => {
  const [a, b] = [Float32Array.of(1, 0.25, 0.75), Float32Array.of(1, 0.75, 0.25)].map(
    (codes) => new Matrix({ n: 2, ahead: false, codes }),
  );
  near(average([a, b]).entries, [1, 0.5, 0.5]);
  const of = (matrix) => ({ matrix, name: "" });
  const apart = difference(of(a), of(b));
  near(apart.entries, [0, -0.5, 0.5]);
  assert.equal(apart.top, 0.5);
  assert.equal(difference(of(a), of(a)).top, 1, "equal heads have a range too");
  assert.equal(difference(of(a), of(a)).below, "0");
  const rounded = unpackHead(Uint8Array.of(255, 0, 255, 0, 0), 2, PLAIN);
  assert.equal(average([rounded, rounded]).below, "below .002");
  assert.equal(difference(of(rounded), of(rounded)).below, "about 0", "weights that differ may be rounded alike");
  near(a.entries, [1, 0.25, 0.75], 0);
  const longer = triangle(3, () => 0);
  assert.throws(() => difference(of(a), of(longer)), /different lengths/);
});

test("votes are shares of the weight per label; absent demonstrations do not count", () => {
  near(votes([0.2, 0.1, 0.1, 0.9], [0, 1, 0, -1], 3), [0.75, 0.25, 0]);
  near(votes([0, 0], [0, 1], 2), [0, 0], 0);
});

test("the largest weights, in order, without zeros", () => {
  assert.deepEqual(largest(Float32Array.of(0.1, 0, 0.5, 0.2, 0.5), 3), [2, 4, 3]);
  assert.deepEqual(largest(new Float32Array(4), 3), []);
});

test("heads in the order of a score, those without a value left out", () => {
  const values = [0.1, null, -0.9, 0.5, 0.1];
  assert.deepEqual(ranked(values, "largest", 3), [3, 0, 4]);
  assert.deepEqual(ranked(values, "smallest", 2), [2, 0]);
  assert.deepEqual(ranked(values, "size", 9), [2, 3, 0, 4]);
});

test("the strongest cell of a window; the first key only where nothing else is", () => {
  const matrix = triangle(5, (query, key) => (key === 0 ? 0.9 : query === 4 && key === 2 ? -0.5 : 0.1));
  assert.deepEqual(strongestIn(matrix, whole(5)), { query: 4, key: 2 });
  assert.deepEqual(strongestIn(matrix, { x: 0, y: 0, span: 3 }), { query: 1, key: 1 });
  assert.deepEqual(strongestIn(triangle(3, (_, key) => (key ? 0 : 1)), whole(3)), { query: 0, key: 0 });
});

test("how far apart two patterns are without the first key and with it, the most they could be, and where most", () => {
  const rows = [
    [[1], [0.9, 0.1], [0.2, 0.7, 0.1]],
    [[1], [0.5, 0.5], [0.9, 0.1, 0]],
  ];
  const [a, b] = rows.map((of) => ({ matrix: triangle(3, (query, key) => of[query][key]), name: "" }));
  const { without, all, size, query, key } = furthest(difference(a, b));
  near([without.apart, without.most], [(0.4 + 0.7) / 3, (0.6 + 0.9) / 3]);
  near([all.apart, all.most], [(0.8 + 1.4) / 3, 2]);
  near([size, query, key], [0.6, 2, 1]); // the first key's .7 is not it
  const alike = furthest(difference(a, a));
  near([alike.without.apart, alike.all.apart, alike.size], [0, 0, 0], 0);
});
