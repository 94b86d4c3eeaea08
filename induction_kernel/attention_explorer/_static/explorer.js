// @ts-check
/**
 * The attention explorer: thumbnails, a map and a scatter of heads; pattern, text and numbers of one of them.
 *
 * One module for two homes: a self-contained page, where it draws every `.ik-explorer` from the data inside,
 * and a notebook, where anywidget calls `render`. It asks the network for nothing and runs no text as code.
 *
 * Sections: types, numbers, weights, colours, elements, sources, heads, pattern, text, card, explorer.
 */

// ----------------------------------------------------------------------------------------------------- types

/**
 * @typedef {object} Prompt
 * @property {string} name
 * @property {string[]} tokens raw token strings
 * @property {number[]} special positions of special tokens
 * @property {number} side thumbnails are side x side
 * @property {[number, number, number, number][]} demonstrations [begin, end, position of the label, class]
 * @property {string[]} labels
 * @property {number} target class of the query, or -1
 * @property {number} answer class that the model predicts, or -1
 * @property {number[][] | null} weights weight of each demonstration, by head
 *
 * @typedef {object} Score one number per head, with its interval, control and test
 * @property {string} name
 * @property {string} unit
 * @property {(number | null)[]} mean
 * @property {(number | null)[] | null} low null if there are no intervals
 * @property {(number | null)[] | null} high
 * @property {(number | null)[] | null} control
 * @property {(number | null)[] | null} chance
 * @property {(number | null)[] | null} excess over control or chance
 * @property {(number | null)[] | null} excess_low
 * @property {(number | null)[] | null} excess_high
 * @property {(number | null)[] | null} threshold
 * @property {(number | null)[]} passes 1, 0, or null where the head was not tested
 * @property {string} untested why heads were not tested
 * @property {"largest" | "smallest" | "size"} first what ranks first
 * @property {string} about what the score is, in sentences; may be empty
 *
 * @typedef {"plain" | "fine" | "half"} Precision entries are byte / 255, (byte / 255) ** 2, or float16
 *
 * @typedef {object} Contents
 * @property {number} format
 * @property {string} title
 * @property {string[]} notes
 * @property {number} layers
 * @property {number} heads heads of a layer
 * @property {number[] | null} present heads that exist; null for all
 * @property {Precision} precision
 * @property {boolean} ahead whether queries attend to later keys too
 * @property {boolean} norms
 * @property {boolean} live
 * @property {Prompt[]} prompts
 * @property {Score[]} scores
 * @property {[number, number, number, number][][]} strongest [prompt, query, key, weight], by head
 * @property {string} ranked
 * @property {{prompt: number, head: number}} start
 *
 * @typedef {{x: number, y: number, span: number}} Window first key, first query, and how many of each
 * @typedef {{matrix: Matrix, prompt: Prompt, name: string}} Shown
 * @typedef {{matrix: Matrix, name: string}} Part
 * @typedef {{matrix: Matrix, prompt: Prompt, index: number}} Pinned
 *
 * @typedef {object} Source where thumbnails and patterns come from
 * @property {(prompt: number) => Promise<Uint8Array<ArrayBuffer>>} thumbnails
 * @property {(prompt: number, index: number) => Promise<Uint8Array<ArrayBuffer> | null>} head
 * @property {() => void} close
 */

const FORMAT = 1;
const ANSWER_WITHIN = 10_000; // milliseconds that a kernel has to answer

// --------------------------------------------------------------------------------------------------- numbers

/**
 * A number as people read it: two digits behind the point, or two that count (one below .001), and no zero
 * before the point.
 * @param {number | null | undefined} x
 * @returns {string}
 */
export function number(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  const size = Math.abs(x);
  let text = "0";
  if (size >= 100) text = size.toFixed(0);
  else if (size >= 10) text = size.toFixed(1);
  else if (size >= 0.0995) text = size.toFixed(2);
  else if (size > 0) text = size.toPrecision(size < 0.001 ? 1 : 2);
  return (x < 0 ? "−" : "") + text.replace(/^0\./, ".");
}

/** @param {number | null | undefined} low @param {number | null | undefined} high */
const interval = (low, high) => (low == null || high == null ? "" : ` [${number(low)}, ${number(high)}]`);

/**
 * Layer and head of "L5H1", "l5h1" or "5.1"; null if it is no head's name.
 * @param {string} text
 * @returns {[number, number] | null}
 */
export function parseHead(text) {
  const found = /^\s*(?:l(\d+)\s*h(\d+)|(\d+)\.(\d+))\s*$/i.exec(text);
  return found ? [Number(found[1] ?? found[3]), Number(found[2] ?? found[4])] : null;
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/;

/**
 * A token in quotation marks on one line; right-to-left text is kept from turning its surroundings round.
 * @param {string} token
 */
export function quoted(token) {
  const line = token.replaceAll("\n", "\\n").replaceAll("\r", "\\r").replaceAll("\t", "\\t");
  return RIGHT_TO_LEFT.test(line) ? `\u2068"${line}"\u2069` : `"${line}"`;
}

// --------------------------------------------------------------------------------------------------- weights

/**
 * The zlib-deflated bytes, inflated.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {string} text base64 */
function fromBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** @param {number} bits of a float16 */
function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** @type {Map<Precision, Float32Array>} */
const TABLES = new Map();

/**
 * The weight that each code stands for.
 * @param {Precision} precision
 */
function tableOf(precision) {
  let table = TABLES.get(precision);
  if (!table) {
    const length = precision === "half" ? 65536 : 256;
    table = Float32Array.from({ length }, (_, code) => {
      if (precision === "half") return halfToNumber(code);
      return precision === "fine" ? (code / 255) ** 2 : code / 255;
    });
    TABLES.set(precision, table);
  }
  return table;
}

/** What a stored zero means: half of the first step. */
const BELOW = { plain: "below .002", fine: "below .000004", half: "0" };

/**
 * One head's weights on one prompt. The codes are kept as they came: a number is made of them where it is read.
 */
export class Matrix {
  /**
   * @param {object} given
   * @param {number} given.n queries, and keys
   * @param {boolean} given.ahead whole rows; else only keys up to the query, row after row
   * @param {Uint8Array | Uint16Array | Float32Array} given.codes
   * @param {Float32Array | null} [given.table] weight of each code; null if the codes are weights
   * @param {Float32Array | null} [given.scale] factor of each key
   * @param {Float32Array | null} [given.mass] share of each query's attention that was rounded to 0
   * @param {Float32Array | null} [given.norms] |v W_O| of each key
   * @param {number} [given.block] tokens to a cell: 1, or more in a thumbnail
   * @param {string} [given.below] what a zero means
   * @param {number} [given.top] the largest size there can be
   * @param {boolean} [given.weighted] products with value norms, as shares of the largest
   * @param {boolean} [given.signed]
   * @param {[Part, Part] | null} [given.parts] of a difference: what it is of, the second subtracted
   */
  constructor(given) {
    this.n = given.n;
    this.ahead = given.ahead;
    this.codes = given.codes;
    this.table = given.table ?? null;
    this.scale = given.scale ?? null;
    this.mass = given.mass ?? null;
    this.norms = given.norms ?? null;
    this.block = given.block ?? 1;
    this.below = given.below ?? "0";
    this.top = given.top ?? 1;
    this.weighted = given.weighted ?? false;
    this.signed = given.signed ?? false;
    this.parts = given.parts ?? null;
  }

  /** Where a query's entries begin. @param {number} query */
  begin(query) {
    return this.ahead ? query * this.n : (query * (query + 1)) / 2;
  }

  /** How many keys a query has. @param {number} query */
  keys(query) {
    return this.ahead ? this.n : query + 1;
  }

  /** @param {number} query @param {number} key */
  at(query, key) {
    if (key >= this.keys(query)) return 0;
    const code = this.codes[this.begin(query) + key];
    return (this.table ? this.table[code] : code) * (this.scale ? this.scale[key] : 1);
  }

  /**
   * A query's weights of the keys from `first` up to, not including, `last`, written into `out`.
   * @param {number} query @param {number} first @param {number} last @param {Float32Array} out
   */
  read(query, first, last, out) {
    const { codes, table, scale } = this;
    const base = this.begin(query) + first;
    const count = last - first;
    if (table) for (let i = 0; i < count; i++) out[i] = table[codes[base + i]];
    else for (let i = 0; i < count; i++) out[i] = codes[base + i];
    if (scale) for (let i = 0; i < count; i++) out[i] *= scale[first + i];
  }

  /** A query's weight of every key. @param {number} query */
  row(query) {
    const out = new Float32Array(this.n);
    this.read(query, 0, this.keys(query), out);
    return out;
  }

  /** Every query's weight of a key. @param {number} key */
  column(key) {
    return Float32Array.from({ length: this.n }, (_, query) => this.at(query, key));
  }

  /** All weights, in the order of the codes. */
  get entries() {
    const out = new Float32Array(this.codes.length);
    for (let query = 0; query < this.n; query++) {
      const begin = this.begin(query);
      this.read(query, 0, this.keys(query), out.subarray(begin, begin + this.keys(query)));
    }
    return out;
  }
}

/**
 * A head's weights from the bytes of one prompt: entries, each query's rounded-away mass, norms of values.
 * @param {Uint8Array<ArrayBuffer>} bytes inflated
 * @param {number} n tokens
 * @param {Pick<Contents, "precision" | "ahead" | "norms">} format
 */
export function unpackHead(bytes, n, format) {
  const { precision, ahead, norms } = format;
  const count = ahead ? n * n : (n * (n + 1)) / 2;
  const half = precision === "half";
  const massAt = count * (half ? 2 : 1);
  const normsAt = massAt + (half ? 0 : n);
  const end = normsAt + (norms ? 2 * n : 0);
  if (bytes.length !== end)
    throw new Error(`a head of ${n} tokens takes ${end} bytes, these are ${bytes.length}`);
  const read = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return new Matrix({
    n,
    ahead,
    // float16 is little-endian, as are all machines that browsers run on
    codes: half ? new Uint16Array(bytes.slice(0, massAt).buffer) : bytes.subarray(0, massAt),
    table: tableOf(precision),
    mass: half ? null : Float32Array.from(bytes.subarray(massAt, normsAt), (byte) => byte / 255),
    norms: norms
      ? Float32Array.from({ length: n }, (_, key) => halfToNumber(read.getUint16(normsAt + 2 * key, true)))
      : null,
    below: BELOW[precision],
  });
}

/**
 * Each weight times the norm of what its key's value writes, as a share of the largest product. All 0 without
 * norms, or if nothing is written.
 * @param {Matrix} matrix
 */
export function valueWeighted(matrix) {
  const norms = matrix.norms ?? new Float32Array(matrix.n);
  let largest = 0;
  const row = new Float32Array(matrix.n);
  for (let query = 0; query < matrix.n; query++) {
    const keys = matrix.keys(query);
    matrix.read(query, 0, keys, row);
    for (let key = 0; key < keys; key++) if (row[key] * norms[key] > largest) largest = row[key] * norms[key];
  }
  const scale = norms.map((norm) => (largest > 0 ? norm / largest : 0));
  return new Matrix({ ...matrix, scale, weighted: true });
}

/**
 * The mean weight of several heads, or of one head on several prompts equally long.
 * @param {Matrix[]} all
 */
export function average(all) {
  const sum = new Float32Array(all[0].codes.length);
  for (const matrix of all) {
    const entries = sameShape(all[0], matrix).entries;
    for (let i = 0; i < sum.length; i++) sum[i] += entries[i] / all.length;
  }
  return new Matrix({
    n: all[0].n,
    ahead: all[0].ahead,
    block: all[0].block,
    below: all[0].below,
    weighted: all[0].weighted,
    codes: sum,
  });
}

/**
 * The first's weights minus the second's; `top` is the largest size.
 * @param {Part} first @param {Part} second
 */
export function difference(first, second) {
  const like = first.matrix;
  const codes = like.entries;
  const other = sameShape(like, second.matrix).entries;
  let top = 0;
  for (let i = 0; i < codes.length; i++) {
    codes[i] -= other[i];
    top = Math.max(top, Math.abs(codes[i]));
  }
  return new Matrix({
    n: like.n,
    ahead: like.ahead,
    block: like.block,
    codes,
    below: like.below === "0" ? "0" : "about 0", // both are rounded
    top: top || 1,
    weighted: like.weighted,
    signed: true,
    parts: [first, second],
  });
}

/**
 * How far the two patterns of a difference are apart. `without` and `all` are sums over keys, as means over
 * queries, without the first key and with it: `apart` of the absolute differences, `most` of both patterns'
 * weights, which is what `apart` is where the two share no key. `query` and `key` are of the largest absolute
 * difference without the first key; `size` is that, 0 if there is none.
 * @param {Matrix} matrix
 */
export function furthest(matrix) {
  const found = {
    without: { apart: 0, most: 0 },
    all: { apart: 0, most: 0 },
    size: 0,
    query: 0,
    key: 0,
  };
  for (let query = 0; query < matrix.n; query++) {
    const entries = matrix.row(query);
    const rows = (matrix.parts ?? []).map((part) => part.matrix.row(query));
    entries.forEach((entry, key) => {
      const apart = Math.abs(entry) / matrix.n;
      const most = rows.reduce((sum, row) => sum + row[key] / matrix.n, 0);
      for (const counted of key ? [found.all, found.without] : [found.all]) {
        counted.apart += apart;
        counted.most += most;
      }
      if (key && Math.abs(entry) > found.size)
        Object.assign(found, { size: Math.abs(entry), query, key });
    });
  }
  return found;
}

/** @param {Matrix} like @param {Matrix} other */
function sameShape(like, other) {
  if (other.n !== like.n || other.ahead !== like.ahead) throw new Error("patterns of different lengths");
  return other;
}

/**
 * The cell of largest size in a window; the first key, which takes what is left over, only if nothing else is there.
 * @param {Matrix} matrix @param {Window} win
 */
export function strongestIn(matrix, win) {
  const [top, left] = [Math.floor(win.y), Math.floor(win.x)];
  const [bottom, right] = [win.y, win.x].map((from) => Math.min(matrix.n, Math.ceil(from + win.span)));
  const best = { query: top, key: left };
  const row = new Float32Array(matrix.n);
  let size = 0;
  for (let query = top; query < bottom; query++) {
    const first = Math.max(1, left);
    const last = Math.min(right, matrix.keys(query));
    if (last <= first) continue;
    matrix.read(query, first, last, row);
    for (let i = 0; i < last - first; i++) {
      if (Math.abs(row[i]) <= size) continue;
      size = Math.abs(row[i]);
      Object.assign(best, { query, key: first + i });
    }
  }
  return best;
}

/**
 * A window of the matrix drawn as side x side pixels: each pixel holds the entry of largest size among its
 * cells, and NaN where there is none. No cell is left out, however small it is drawn.
 * @param {Matrix} matrix @param {Window} win @param {number} side
 */
export function pool(matrix, win, side) {
  return win.span > side ? pooled(matrix, win, side) : magnified(matrix, win, side);
}

/** Cells smaller than a pixel. @param {Matrix} matrix @param {Window} win @param {number} side */
function pooled(matrix, win, side) {
  const out = new Float32Array(side * side).fill(NaN);
  const first = Math.floor(win.x);
  const last = Math.min(matrix.n, Math.ceil(win.x + win.span));
  const end = Math.min(matrix.n, Math.ceil(win.y + win.span));
  const pixel = Int32Array.from({ length: last - first }, (_, i) =>
    pixelOf(first + i - win.x, win.span, side),
  );
  const row = new Float32Array(last - first);
  for (let query = Math.floor(win.y); query < end; query++) {
    const keys = Math.min(last, matrix.keys(query)) - first;
    if (keys <= 0) continue;
    matrix.read(query, first, first + keys, row);
    const base = pixelOf(query - win.y, win.span, side) * side;
    for (let i = 0; i < keys; i++) {
      const at = base + pixel[i];
      if (!(Math.abs(out[at]) >= Math.abs(row[i]))) out[at] = row[i];
    }
  }
  return out;
}

/** @param {number} offset @param {number} span @param {number} side */
const pixelOf = (offset, span, side) =>
  Math.min(side - 1, Math.max(0, Math.floor(((offset + 0.5) * side) / span)));

/** Cells of a pixel or more. @param {Matrix} matrix @param {Window} win @param {number} side */
function magnified(matrix, win, side) {
  const out = new Float32Array(side * side).fill(NaN);
  const cell = (/** @type {number} */ at, /** @type {number} */ from) =>
    Math.min(matrix.n - 1, Math.floor(from + ((at + 0.5) * win.span) / side));
  for (let y = 0; y < side; y++) {
    const query = cell(y, win.y);
    if (y && query === cell(y - 1, win.y)) {
      out.copyWithin(y * side, (y - 1) * side, y * side);
      continue;
    }
    const row = matrix.row(query);
    for (let x = 0; x < side; x++) {
      const key = cell(x, win.x);
      if (key < matrix.keys(query)) out[y * side + x] = row[key];
    }
  }
  return out;
}

/**
 * A square thumbnail drawn as side x side pixels, by the largest byte of each pixel.
 * @param {Uint8Array} bytes @param {number} from side of the thumbnail @param {number} side
 */
export function poolThumbnail(bytes, from, side) {
  const matrix = new Matrix({ n: from, ahead: true, codes: bytes });
  return pool(matrix, { x: 0, y: 0, span: from }, side);
}

/**
 * Each label's share of the demonstrations' weight; all 0 if there is none.
 * @param {number[]} weights of the demonstrations
 * @param {number[]} classes -1 where there is none
 * @param {number} labels how many
 */
export function votes(weights, classes, labels) {
  const shares = new Array(labels).fill(0);
  let total = 0;
  weights.forEach((weight, i) => {
    if (classes[i] < 0) return;
    shares[classes[i]] += weight;
    total += weight;
  });
  return total > 0 ? shares.map((share) => share / total) : shares;
}

/**
 * Positions of the largest weights, largest first, zeros left out.
 * @param {Float32Array} weights @param {number} count
 */
export function largest(weights, count) {
  /** @type {number[]} */
  const best = [];
  weights.forEach((weight, at) => {
    if (weight === 0 || (best.length === count && Math.abs(weight) <= Math.abs(weights[best[count - 1]])))
      return;
    let place = best.length;
    while (place && Math.abs(weight) > Math.abs(weights[best[place - 1]])) place--;
    best.splice(place, 0, at);
    if (best.length > count) best.pop();
  });
  return best;
}

/**
 * Heads in the order of a score, the first of them; those without a value are left out.
 * @param {(number | null)[]} values by head
 * @param {Score["first"]} first the value that ranks first
 * @param {number} count
 */
export function ranked(values, first, count) {
  const place = (/** @type {number} */ index) => {
    const value = values[index] ?? 0;
    return first === "size" ? Math.abs(value) : first === "smallest" ? -value : value;
  };
  return [...values.keys()]
    .filter((index) => values[index] !== null)
    .sort((a, b) => place(b) - place(a) || a - b)
    .slice(0, count);
}

// --------------------------------------------------------------------------------------------------- colours

/** @typedef {"linear" | "square root" | "logarithmic"} Shade how a weight becomes a shade */

const LOG_FROM = 1e-4;

/**
 * A weight's place on the ramp, -1 to 1.
 * @param {number} weight as a share of the largest @param {Shade} shade
 */
export function placeOnRamp(weight, shade) {
  const size = Math.min(1, Math.abs(weight));
  if (size === 0) return 0;
  let place = size;
  if (shade === "square root") place = Math.sqrt(size);
  if (shade === "logarithmic") place = Math.max(0, 1 - Math.log(size) / Math.log(LOG_FROM));
  return Math.sign(weight) * Math.max(1 / 255, place);
}

/** @typedef {[number, number, number]} Rgb */

const THEMES = {
  light: {
    weight: ["#ffffff", "#cfe3f5", "#7fb6dd", "#2f7ebc", "#0b4a8f", "#06264f"],
    score: ["#f4eef7", "#d9c2e0", "#b786c4", "#8a4a9e", "#5a1e70", "#360a47"],
    signed: ["#8c3a04", "#d8741a", "#f7cf9f", "#f5f5f5", "#a9cdea", "#2f7ebc", "#08366b"],
    empty: "#eceff3",
    ink: "#1b2128",
    quiet: "#56606b",
    line: "#ccd3da",
    mark: "#d02670",
    key: "255, 150, 20",
    query: "40, 175, 160",
  },
  dark: {
    weight: ["#11151a", "#173a5c", "#1f639c", "#3f95d6", "#92cdf5", "#f0f9ff"],
    score: ["#221a28", "#4a2a58", "#78458c", "#a86fbd", "#d6a9e4", "#fbeeff"],
    signed: ["#ffc078", "#d9741c", "#6b3a12", "#1c2026", "#1d4a75", "#3f95d6", "#c4e6fd"],
    empty: "#22272e",
    ink: "#e6eaef",
    quiet: "#a4aeb9",
    line: "#3a434d",
    mark: "#ff7eb6",
    key: "160, 80, 0",
    query: "0, 108, 98",
  },
};

/**
 * The colour behind tokens: of keys if a query is looked from, else of queries.
 * @param {Palette} palette @param {"query" | "key"} as
 */
const tintOf = (palette, as) => (as === "key" ? palette.of.query : palette.of.key);

/** @param {string} text "#rrggbb" @returns {Rgb} */
const rgb = (text) => /** @type {Rgb} */ ([1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));

/**
 * The colour at a place from 0 to 1 between the stops.
 * @param {string[]} stops @param {number} place
 * @returns {Rgb}
 */
export function between(stops, place) {
  const at = Math.min(1, Math.max(0, place)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  const [a, b] = [rgb(stops[low]), rgb(stops[low + 1])];
  return /** @type {Rgb} */ (a.map((from, i) => Math.round(from + (b[i] - from) * (at - low))));
}

/** 256 colours as pixels of an ImageData. @param {string[]} stops */
const pixels = (stops) =>
  Uint32Array.from({ length: 256 }, (_, i) => {
    const [r, g, b] = between(stops, i / 255);
    return (255 << 24) | (b << 16) | (g << 8) | r;
  });

/** Colours of the light or the dark theme. */
class Palette {
  /** @param {"light" | "dark"} theme */
  constructor(theme) {
    this.of = THEMES[theme];
    this.weight = pixels(this.of.weight);
    this.signed = pixels(this.of.signed);
    this.empty = pixels([this.of.empty, this.of.empty])[0];
  }

  /**
   * Weights as an image; where there are none, the colour of nothing.
   * @param {Float32Array} values
   * @param {number} side
   * @param {Shade} shade
   * @param {number} top the largest size there can be
   * @param {boolean} signed
   */
  image(values, side, shade, top, signed) {
    const image = new ImageData(side, side);
    const out = new Uint32Array(image.data.buffer);
    for (let i = 0; i < values.length; i++) {
      if (Number.isNaN(values[i])) out[i] = this.empty;
      else {
        const place = placeOnRamp(values[i] / top, shade);
        out[i] = signed
          ? this.signed[Math.round(127.5 + 127.5 * place)]
          : this.weight[Math.round(255 * place)];
      }
    }
    return image;
  }

  /** @param {string[]} stops @param {number} place */
  css(stops, place) {
    return `rgb(${between(stops, place).join(", ")})`;
  }
}

/** What a score's colours reach from and to. @typedef {{low: number, high: number, signed: boolean}} Range */

/**
 * @param {(number | null)[]} values
 * @returns {Range}
 */
export function rangeOf(values) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null));
  const high = Math.max(0, ...known);
  const low = Math.min(0, ...known);
  if (low < -0.05 * high) {
    const size = Math.max(high, -low);
    return { low: -size, high: size, signed: true };
  }
  return { low: 0, high: high || 1, signed: false };
}

/** @param {Palette} palette @param {Range} range @param {number | null} value */
function scoreColour(palette, range, value) {
  if (value === null) return palette.of.empty;
  const stops = range.signed ? palette.of.signed : palette.of.score;
  return palette.css(stops, (value - range.low) / (range.high - range.low));
}

// -------------------------------------------------------------------------------------------------- elements

/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes true: empty; null: none */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

/**
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Node | string)} children
 */
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

/**
 * @param {Element} element
 * @param {Attributes} attributes
 */
function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

/** @param {string[]} names @param {string} label @param {string} [kind] */
function menu(names, label, kind = "") {
  const select = el("select", { class: kind, "aria-label": label });
  names.forEach((name, value) => select.append(el("option", { value }, name)));
  return select;
}

/** @param {string} text @param {string} label @param {string} [kind] */
const button = (text, label, kind = "") =>
  el("button", { type: "button", class: kind, "aria-label": label === text ? null : label }, text);

/** @param {HTMLCanvasElement} canvas */
function context(canvas) {
  const found = canvas.getContext("2d");
  if (!found) throw new Error("this browser has no canvas");
  return found;
}

/** At most one call a frame. @param {() => void} draw */
function onceAFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

/**
 * Scrolls a box, and nothing around it, so that an element in it is seen.
 * @param {Element} box
 * @param {Element} element
 */
function reveal(box, element) {
  const outer = box.getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  if (inner.top < outer.top + 24) box.scrollTop += inner.top - outer.top - 24;
  else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom + 4;
  if (inner.left < outer.left + 30) box.scrollLeft += inner.left - outer.left - 30;
  else if (inner.right > outer.right) box.scrollLeft += inner.right - outer.right + 4;
}

/**
 * A legend: the ramp with values under it.
 * @param {string} ramp CSS
 * @param {[number, string][]} ticks place and text
 */
function legend(ramp, ticks) {
  const bar = el("span", { class: "ik-ramp" });
  bar.style.background = ramp;
  const marks = el("span", { class: "ik-ticks" });
  for (const [place, text] of ticks) {
    const tick = el("span", {}, text);
    tick.style.left = `${100 * place}%`;
    marks.append(tick);
  }
  return el("span", { class: "ik-legend" }, bar, marks);
}

// --------------------------------------------------------------------------------------------------- sources

/** Data inside a page. @implements {Source} */
class PageSource {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
  }

  /** @param {string} selector */
  read(selector) {
    const text = this.root.querySelector(selector)?.textContent;
    return text ? inflate(fromBase64(text)) : null;
  }

  /** @param {number} prompt */
  async thumbnails(prompt) {
    const found = await this.read(`script[data-thumbnails="${prompt}"]`);
    if (!found) throw new Error(`no thumbnails of prompt ${prompt + 1}`);
    return found;
  }

  /** @param {number} prompt @param {number} index */
  async head(prompt, index) {
    return this.read(`script[data-head="${prompt}:${index}"]`);
  }

  close() {}
}

/**
 * What anywidget hands over, as far as it is used here.
 * @typedef {object} Model
 * @property {(name: string) => any} get
 * @property {(content: object) => void} send
 * @property {(event: string, listener: (...given: any[]) => void) => void} on
 * @property {(event: string, listener: (...given: any[]) => void) => void} off
 */

/** @param {DataView<ArrayBuffer>} view */
const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Data of a running kernel: asked for by message, answered by one with a buffer. @implements {Source} */
class KernelSource {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    // Several views may show one model, and each hears all answers: their questions need different numbers.
    this.asked = Math.floor(Math.random() * 2 ** 48);
    /**
     * @type {Map<number, {resolve: (bytes: Uint8Array<ArrayBuffer>) => void, reject: (why: Error) => void}>}
     */
    this.waiting = new Map();
    this.listener = (/** @type {any} */ message, /** @type {DataView<ArrayBuffer>[]} */ buffers) =>
      this.answered(message, buffers);
    model.on("msg:custom", this.listener);
  }

  /** @param {any} message @param {DataView<ArrayBuffer>[]} buffers */
  answered(message, buffers) {
    const one = this.waiting.get(message?.id);
    if (!one) return;
    this.waiting.delete(message.id);
    if (message.kind === "bytes") one.resolve(bytesOf(buffers[0]));
    else one.reject(new Error(String(message.text)));
  }

  /** @param {object} question @returns {Promise<Uint8Array<ArrayBuffer>>} */
  ask(question) {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.model.send({ ...question, id });
    });
  }

  /** @param {number} prompt */
  async thumbnails(prompt) {
    if (prompt === 0) return inflate(bytesOf(this.model.get("thumbnails")));
    return this.ask({ kind: "thumbnails", prompt });
  }

  /** @param {number} prompt @param {number} index */
  head(prompt, index) {
    return this.ask({ kind: "head", prompt, index });
  }

  close() {
    this.model.off("msg:custom", this.listener);
  }
}

const KEPT_HEADS = 16;
const KEPT_BYTES = 256e6;

/** Decoded patterns, the last used ones kept. */
class Patterns {
  /** @param {Source} source @param {Contents} contents */
  constructor(source, contents) {
    this.source = source;
    this.contents = contents;
    /** @type {Map<string, {matrix: Promise<Matrix | null>, bytes: number}>} */
    this.kept = new Map();
    /** @type {Map<number, Promise<Uint8Array<ArrayBuffer>>>} */
    this.small = new Map();
    /** @type {WeakMap<Matrix, Matrix>} */
    this.weighted = new WeakMap();
  }

  /** Thumbnails of all heads. @param {number} prompt */
  thumbnails(prompt) {
    let found = this.small.get(prompt);
    if (!found) {
      found = this.source.thumbnails(prompt);
      found.catch(() => this.small.delete(prompt));
      this.small.set(prompt, found);
    }
    return found;
  }

  /** A head's pattern; null if it is not stored whole. @param {number} prompt @param {number} index */
  whole(prompt, index) {
    const name = `${prompt}:${index}`;
    const found = this.kept.get(name) ?? this.decode(prompt, index, name);
    this.kept.delete(name); // the last used one stands last
    this.kept.set(name, found);
    return found.matrix;
  }

  /** @param {number} prompt @param {number} index @param {string} name */
  decode(prompt, index, name) {
    const n = this.contents.prompts[prompt].tokens.length;
    const matrix = this.source
      .head(prompt, index)
      .then((bytes) => bytes && unpackHead(bytes, n, this.contents));
    matrix.catch(() => this.kept.delete(name));
    const each = this.contents.precision === "half" ? 2 : 1;
    const bytes = each * n * (this.contents.ahead ? n : n / 2);
    let total = bytes;
    for (const one of this.kept.values()) total += one.bytes;
    for (const [oldest, one] of this.kept) {
      if (this.kept.size < 4 || (this.kept.size < KEPT_HEADS && total < KEPT_BYTES)) break;
      this.kept.delete(oldest);
      total -= one.bytes;
    }
    return { matrix, bytes };
  }

  /** @param {number} prompt @param {number} index */
  forget(prompt, index) {
    this.kept.delete(`${prompt}:${index}`);
  }

  /** A head's thumbnail as a pattern of blocks. @param {number} prompt @param {number} index */
  async thumbnail(prompt, index) {
    const bytes = await this.thumbnails(prompt);
    const { side, tokens } = this.contents.prompts[prompt];
    const codes = bytes.subarray(index * side * side, (index + 1) * side * side);
    const block = tokens.length / side;
    if (block > 1 || this.contents.ahead) {
      return new Matrix({ n: side, ahead: true, codes, table: tableOf("plain"), block, below: BELOW.plain });
    }
    const lower = [];
    for (let query = 0; query < side; query++)
      lower.push(...codes.subarray(query * side, query * side + query + 1));
    return new Matrix({
      n: side,
      ahead: false,
      codes: Uint8Array.from(lower),
      table: tableOf("plain"),
      below: BELOW.plain,
    });
  }

  /** Weights times value norms. @param {Matrix} matrix */
  valueWeighted(matrix) {
    if (!matrix.norms) return matrix;
    let found = this.weighted.get(matrix);
    if (!found) this.weighted.set(matrix, (found = valueWeighted(matrix)));
    return found;
  }
}

// ----------------------------------------------------------------------------------------------------- heads

/**
 * The heads of a model in rows of layers: as thumbnails of their patterns, or as cells coloured by a score.
 */
class HeadGrid {
  /** @param {Explorer} explorer @param {"thumb" | "map"} kind */
  constructor(explorer, kind) {
    this.explorer = explorer;
    this.kind = kind;
    this.canvas = el("canvas", { class: "ik-thumb-canvas", "aria-hidden": "true" });
    this.grid = el("div", { class: `ik-grid ik-grid-${kind}` });
    this.box = el(
      "div",
      { class: "ik-grid-box", role: "group", "aria-label": "Heads: layers down, heads across" },
      this.grid,
    );
    this.rows = el("p", { class: "ik-quiet ik-rows", hidden: true });
    this.panel = el("div", {}, this.box, this.rows);
    /** @type {(HTMLButtonElement)[]} */
    this.cells = [];
    this.cell = 0;
    this.build();
    this.listen();
    explorer.watchSize(this.box, () => this.resize());
  }

  build() {
    const { layers, heads } = this.explorer.contents;
    if (this.kind === "thumb") this.grid.append(this.canvas);
    this.grid.append(el("span", { class: "ik-corner", "aria-hidden": "true" }));
    const numbered = (/** @type {string} */ letter, /** @type {number} */ at, /** @type {string} */ kind) =>
      el("span", { class: at % 5 ? kind : `${kind} ik-fifth`, "aria-hidden": "true" }, letter + at);
    for (let head = 0; head < heads; head++) this.grid.append(numbered("H", head, "ik-head-number"));
    for (let layer = 0; layer < layers; layer++) {
      this.grid.append(numbered("L", layer, "ik-layer-number"));
      for (let head = 0; head < heads; head++) this.grid.append(this.makeCell(layer * heads + head));
    }
  }

  /** @param {number} index */
  makeCell(index) {
    const made = button("", this.explorer.nameOf(index), this.kind === "thumb" ? "ik-thumb" : "ik-map-cell");
    made.dataset.index = String(index);
    made.tabIndex = -1;
    made.disabled = !this.explorer.isPresent(index);
    this.cells.push(made);
    return made;
  }

  listen() {
    const { explorer } = this;
    const at = (/** @type {Event} */ event) => {
      const cell = event.target instanceof Element ? event.target.closest("button") : null;
      return cell ? Number(cell.dataset.index) : null;
    };
    explorer.on(this.grid, "click", (event) => {
      const index = at(event);
      if (index !== null) explorer.choose(index);
    });
    explorer.on(this.box, "scroll", () => this.sayRows());
    for (const kind of ["pointerover", "focusin"]) {
      explorer.on(this.grid, kind, (event) => {
        const index = at(event);
        if (index !== null) explorer.sayHead(index);
      });
    }
    explorer.on(this.grid, "pointerleave", () => explorer.sayHead(explorer.state.head));
    explorer.on(this.grid, "keydown", (event) => {
      const index = at(event);
      if (index !== null) this.key(/** @type {KeyboardEvent} */ (event), index);
    });
  }

  /** @param {KeyboardEvent} event @param {number} index */
  key(event, index) {
    const { heads, layers } = this.explorer.contents;
    const [first, last] = event.ctrlKey
      ? [0, layers * heads - 1]
      : [index - (index % heads), index - (index % heads) + heads - 1];
    /** @type {Record<string, [number, number]>} where to, and the step if no head is there */
    const moves = {
      ArrowLeft: [index - 1, -1],
      ArrowRight: [index + 1, 1],
      ArrowUp: [index - heads, -heads],
      ArrowDown: [index + heads, heads],
      Home: [first, 1],
      End: [last, -1],
    };
    const move = moves[event.key];
    if (!move || event.altKey || event.metaKey) return;
    event.preventDefault();
    let [to, step] = move;
    while (to >= 0 && to < layers * heads && !this.explorer.isPresent(to)) to += step;
    if (to < 0 || to >= layers * heads) return;
    this.cells[to].focus({ preventScroll: true });
    reveal(this.box, this.cells[to]);
    this.explorer.chooseSoon(to);
  }

  /** Cells as large as the box lets them be; those of the map are lower where that shows all layers. */
  resize() {
    const { heads, layers } = this.explorer.contents;
    const [least, most] = this.kind === "thumb" ? [32, 76] : [heads > 20 || layers > 20 ? 12 : 24, 44];
    const fit = Math.floor((this.box.clientWidth - 34) / heads) - 2;
    const cell = Math.min(most, Math.max(least, fit));
    if (cell === this.cell || !this.box.clientWidth) {
      this.sayRows();
      return;
    }
    const room = Math.floor(Math.min(0.7 * window.innerHeight, 640) / (layers + 1)) - 2;
    const row = this.kind === "thumb" ? cell : Math.min(cell, Math.max(least, room));
    this.cell = cell;
    this.grid.classList.toggle("ik-tight", cell < 20); // room for every fifth number
    this.grid.style.setProperty("grid-template-columns", `26px repeat(${heads}, ${cell}px)`);
    this.grid.style.setProperty("grid-template-rows", `18px repeat(${layers}, ${row}px)`);
    this.draw();
    reveal(this.box, this.cells[this.explorer.state.head]);
    this.sayRows();
  }

  /** Which layers and heads are in sight, where the box has to be scrolled for the others. */
  sayRows() {
    const { heads, layers } = this.explorer.contents;
    const { box, cells } = this;
    const outer = box.getBoundingClientRect();
    const seen = cells.map((cell) => cell.getBoundingClientRect());
    // A cell is in sight if its middle is, beside the numbers of layers and heads that stay where they are.
    const down = range(0, layers).filter((layer) => {
      const { top, bottom } = seen[layer * heads];
      return (top + bottom) / 2 > outer.top + 18 && (top + bottom) / 2 < outer.top + box.clientHeight;
    });
    const across = range(0, heads).filter((head) => {
      const { left, right } = seen[head];
      return (left + right) / 2 > outer.left + 26 && (left + right) / 2 < outer.left + box.clientWidth;
    });
    const said = [seenOf("layers", "L", down, layers), seenOf("heads", "H", across, heads)].filter(Boolean);
    this.rows.hidden = !said.length || !box.clientWidth;
    this.rows.textContent = `In sight are ${said.join(" and ")}: scroll for the others.`;
  }

  draw() {
    const { state } = this.explorer;
    const { range, values, score } = this.explorer.scoreValues();
    this.cells.forEach((cell, index) => {
      const chosen = index === state.head;
      const passes = score?.passes[index];
      cell.tabIndex = chosen ? 0 : -1;
      cell.setAttribute("aria-pressed", String(chosen));
      cell.classList.toggle("ik-passes", passes === 1);
      cell.classList.toggle("ik-untested", Boolean(score) && passes === null);
      cell.setAttribute("aria-label", this.explorer.describe(index));
      if (score)
        cell.style.setProperty(
          "--ik-score",
          scoreColour(this.explorer.palette, range, values[index] ?? null),
        );
    });
    if (this.kind === "thumb") this.drawThumbnails();
  }

  /** The chosen head alone, where nothing else has changed. @param {number} before */
  mark(before) {
    for (const index of [before, this.explorer.state.head]) {
      const chosen = index === this.explorer.state.head;
      this.cells[index].tabIndex = chosen ? 0 : -1;
      this.cells[index].setAttribute("aria-pressed", String(chosen));
    }
    if (this.box.clientWidth) reveal(this.box, this.cells[this.explorer.state.head]);
  }

  drawThumbnails() {
    const bytes = this.explorer.thumbnails;
    if (!bytes) this.canvas.width = 0; // those of another prompt
    if (!bytes || !this.cell) return;
    const { contents, palette, state } = this.explorer;
    const { heads, layers, prompts } = contents;
    const from = prompts[state.prompt].side;
    const dots = window.devicePixelRatio || 1;
    const pitch = this.cell + 2;
    const side = Math.max(1, Math.round((this.cell - 4) * dots));
    const inset = Math.round(dots);
    this.canvas.width = Math.round(heads * pitch * dots);
    this.canvas.height = Math.round(layers * pitch * dots);
    this.canvas.style.width = `${heads * pitch}px`;
    this.canvas.style.height = `${layers * pitch}px`;
    const draw = context(this.canvas);
    for (let index = 0; index < heads * layers; index++) {
      if (!this.explorer.isPresent(index)) continue;
      const values = poolThumbnail(
        bytes.subarray(index * from * from, (index + 1) * from * from),
        from,
        side,
      );
      const image = palette.image(values, side, "square root", 255, false);
      const [x, y] = [index % heads, Math.floor(index / heads)];
      draw.putImageData(image, Math.round(x * pitch * dots) + inset, Math.round(y * pitch * dots) + inset);
    }
  }
}

/**
 * What is in sight of a number of layers or heads; empty if all are.
 * @param {string} what @param {string} letter @param {number[]} seen @param {number} count
 */
const seenOf = (what, letter, seen, count) =>
  seen.length && seen.length < count
    ? `${what} ${letter}${seen[0]} to ${letter}${seen[seen.length - 1]} of ${count}`
    : "";

/**
 * Ticks at round numbers within a range.
 * @param {number} low
 * @param {number} high
 * @param {number} about how many
 */
export function ticksOf(low, high, about) {
  const rough = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step =
    [1, 2, 5, 10].map((times) => times * power).find((each) => each >= rough * 0.999) ?? 10 * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

const SCATTER = { width: 460, height: 400, left: 52, right: 14, top: 12, bottom: 44 };

/** Two scores against each other; each point is a head. */
class Scatter {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    const names = explorer.contents.scores.map((score) => score.name);
    this.across = menu(names, "Score across", "ik-scatter-x");
    this.up = menu(names, "Score upwards", "ik-scatter-y");
    this.up.value = String(Math.min(1, names.length - 1));
    this.picture = svg("svg", {
      class: "ik-scatter",
      viewBox: `0 0 ${SCATTER.width} ${SCATTER.height}`,
      role: "group",
      "aria-label": "Heads by two scores",
    });
    this.panel = el(
      "div",
      {},
      el(
        "div",
        { class: "ik-row" },
        el("label", {}, "Across ", this.across),
        el("label", {}, "Up ", this.up),
      ),
      this.picture,
      el("p", { class: "ik-quiet" }, "Filled: passes at least one of the two."),
    );
    /** @type {{index: number, x: number, y: number, point: Element}[]} */
    this.points = [];
    for (const select of [this.across, this.up]) explorer.on(select, "change", () => this.draw());
    this.listen();
  }

  listen() {
    const { explorer } = this;
    const at = (/** @type {Event} */ event) => this.points.find((one) => one.point === event.target);
    explorer.on(this.picture, "click", (event) => {
      const one = at(event);
      if (one) explorer.choose(one.index);
    });
    for (const kind of ["pointerover", "focusin"]) {
      explorer.on(this.picture, kind, (event) => {
        const one = at(event);
        if (one) explorer.sayHead(one.index);
        this.name(one ?? this.chosen());
      });
    }
    explorer.on(this.picture, "keydown", (event) =>
      this.key(/** @type {KeyboardEvent} */ (event), at(event)),
    );
  }

  chosen() {
    return this.points.find((one) => one.index === this.explorer.state.head);
  }

  /**
   * Arrow keys go to the next point in their direction.
   * @param {KeyboardEvent} event
   * @param {{index: number, x: number, y: number} | undefined} from
   */
  key(event, from) {
    if (!from || event.altKey || event.metaKey || event.ctrlKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.explorer.choose(from.index);
      return;
    }
    const across = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (!across && event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    event.preventDefault();
    const forward = event.key === "ArrowRight" || event.key === "ArrowDown";
    const order = [...this.points].sort((a, b) => (across ? a.x - b.x : a.y - b.y) || a.index - b.index);
    const to = order[order.findIndex((one) => one.index === from.index) + (forward ? 1 : -1)];
    if (!to) return;
    /** @type {SVGElement} */ (to.point).focus({ preventScroll: true });
    this.explorer.chooseSoon(to.index);
  }

  draw() {
    const { scores } = this.explorer.contents;
    const [x, y] = [scores[Number(this.across.value)], scores[Number(this.up.value)]];
    const [toX, toY] = [
      axis(x.mean, SCATTER.left, SCATTER.width - SCATTER.right),
      axis(y.mean, SCATTER.height - SCATTER.bottom, SCATTER.top),
    ];
    this.picture.replaceChildren(...axes(toX, toY, x, y));
    this.points = [];
    x.mean.forEach((value, index) => {
      const other = y.mean[index];
      if (value === null || other === null || !this.explorer.isPresent(index)) return;
      const [cx, cy] = [toX.place(value), toY.place(other)];
      const point = svg("circle", { cx, cy, r: 5, role: "button", class: "ik-point" });
      this.points.push({ index, x: cx, y: cy, point });
      this.picture.append(point);
    });
    this.label = svg("text", { class: "ik-point-name", "aria-hidden": "true" });
    this.picture.append(this.label);
    this.mark();
  }

  mark() {
    const chosen = this.chosen() ?? this.points[0];
    for (const one of this.points) {
      const is = one === this.chosen();
      one.point.setAttribute("tabindex", one === chosen ? "0" : "-1");
      one.point.setAttribute("aria-pressed", String(is));
      one.point.setAttribute("aria-label", this.explorer.nameOf(one.index));
      one.point.classList.toggle("ik-chosen", is);
      const passes = [this.across, this.up].some(
        (select) => this.explorer.contents.scores[Number(select.value)].passes[one.index] === 1,
      );
      one.point.classList.toggle("ik-passes", passes);
    }
    this.name(this.chosen());
  }

  /** Writes a head's name beside its point. @param {{index: number, x: number, y: number} | undefined} one */
  name(one) {
    if (!this.label) return;
    this.label.textContent = one ? this.explorer.nameOf(one.index) : "";
    if (!one) return;
    const left = one.x > SCATTER.width - 70;
    setAttributes(this.label, {
      x: one.x + (left ? -9 : 9),
      y: Math.max(20, one.y - 7),
      "text-anchor": left ? "end" : "start",
    });
  }
}

/**
 * A scale from values to pixels.
 * @param {(number | null)[]} values
 * @param {number} from
 * @param {number} to
 */
function axis(values, from, to) {
  const known = /** @type {number[]} */ (values.filter((value) => value !== null));
  const low = Math.min(0, ...known);
  const high = Math.max(low + 1e-6, ...known);
  const room = 0.04 * (high - low);
  const place = (/** @type {number} */ value) =>
    from + ((value - low + room) / (high - low + 2 * room)) * (to - from);
  return { place, ticks: ticksOf(low, high, 5) };
}

/**
 * @param {ReturnType<typeof axis>} across
 * @param {ReturnType<typeof axis>} up
 * @param {Score} x
 * @param {Score} y
 */
function axes(across, up, x, y) {
  const { width, height, left, right, top, bottom } = SCATTER;
  const parts = [];
  for (const tick of across.ticks) {
    const at = across.place(tick);
    parts.push(svg("line", { x1: at, x2: at, y1: top, y2: height - bottom, class: "ik-rule" }));
    parts.push(svg("text", { x: at, y: height - bottom + 16, "text-anchor": "middle" }, number(tick)));
  }
  for (const tick of up.ticks) {
    const at = up.place(tick);
    parts.push(svg("line", { x1: left, x2: width - right, y1: at, y2: at, class: "ik-rule" }));
    parts.push(svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, number(tick)));
  }
  const named = (/** @type {Score} */ score) => score.name + (score.unit ? ` (${score.unit})` : "");
  parts.push(
    svg(
      "text",
      { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", class: "ik-axis" },
      named(x),
    ),
  );
  const middle = (top + height - bottom) / 2;
  parts.push(
    svg(
      "text",
      { x: 12, y: middle, transform: `rotate(-90 12 ${middle})`, "text-anchor": "middle", class: "ik-axis" },
      named(y),
    ),
  );
  return parts;
}

// --------------------------------------------------------------------------------------------------- pattern

/** The part of the patterns that is shown; panels of prompts equally long share it. */
class View {
  /** @param {number} n */
  constructor(n) {
    this.n = n;
    this.x = 0;
    this.y = 0;
    this.span = n;
    /** @type {{query: number, key: number} | null} */
    this.cursor = null;
  }

  get whole() {
    return this.span >= this.n;
  }

  /**
   * Zooms so that the given place, in cells, stays where it is.
   * @param {number} factor
   * @param {number} key
   * @param {number} query
   */
  zoom(factor, key, query) {
    const span = Math.min(this.n, Math.max(Math.min(4, this.n), this.span * factor));
    this.x = key - ((key - this.x) * span) / this.span;
    this.y = query - ((query - this.y) * span) / this.span;
    this.span = span;
    this.clamp();
  }

  /** @param {number} keys @param {number} queries */
  move(keys, queries) {
    this.x += keys;
    this.y += queries;
    this.clamp();
  }

  /** Moves no further than to show a cell. @param {number} query @param {number} key */
  show(query, key) {
    this.x = Math.min(Math.max(this.x, key + 1 - this.span), key);
    this.y = Math.min(Math.max(this.y, query + 1 - this.span), query);
    this.clamp();
  }

  reset() {
    this.x = this.y = 0;
    this.span = this.n;
  }

  clamp() {
    const most = this.n - this.span;
    this.x = Math.min(most, Math.max(0, this.x));
    this.y = Math.min(most, Math.max(0, this.y));
  }
}

const FONT = "11px system-ui, sans-serif";
const TWO_LINES = 22; // pixels of a cell that has room for a token and its position

/** One pattern on a canvas, with its axes; a second canvas over it holds the cursor. */
class PatternPanel {
  /** @param {PatternArea} area @param {boolean} small */
  constructor(area, small) {
    this.area = area;
    this.small = small;
    this.canvas = el("canvas", {
      class: small ? "ik-pinned-canvas" : "ik-pattern",
      tabindex: small ? null : 0,
    });
    this.over = el("canvas", { class: "ik-over", "aria-hidden": "true" });
    this.title = el("figcaption", {});
    this.holder = el("div", { class: "ik-canvas-holder" }, this.canvas, this.over);
    this.figure = el("figure", { class: small ? "ik-panel ik-small" : "ik-panel" }, this.title, this.holder);
    /** @type {Matrix | null} */
    this.matrix = null;
    /** @type {Prompt | null} */
    this.prompt = null;
    this.name = "";
    this.view = new View(1);
    this.size = { width: 0, left: 0, top: 0, side: 1 };
    /** @type {{matrix: Matrix, side: number, values: Float32Array} | null} */
    this.overview = null;
    area.explorer.watchSize(this.holder, () => {
      if (this.measure().width !== this.size.width) this.draw();
    });
    this.listen();
  }

  /** @param {Matrix} matrix @param {Prompt} prompt @param {string} name @param {View} view */
  set(matrix, prompt, name, view) {
    Object.assign(this, { matrix, prompt, name, view });
    this.title.textContent = name;
    this.canvas.setAttribute("role", this.small ? "img" : "application");
    this.canvas.setAttribute("aria-label", `Attention pattern: ${name}. Queries down, keys across.`);
    this.draw();
  }

  measure() {
    const width = Math.max(80, this.holder.clientWidth);
    const room = this.small ? 4 : 66;
    const side = Math.max(
      40,
      Math.min(width - room - 2, this.small ? width : Math.max(260, 0.82 * window.innerHeight)),
    );
    return {
      width,
      left: this.small ? 2 : room,
      top: this.small ? 2 : 8, // half of the first query's name
      side: Math.floor(side),
      height: Math.floor(side) + (this.small ? 4 : room + 8),
    };
  }

  draw() {
    const { matrix } = this;
    if (!matrix || !this.holder.clientWidth) return;
    const { explorer } = this.area;
    const size = (this.size = this.measure());
    const dots = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = Math.round(size.width * dots);
      canvas.height = Math.round(size.height * dots);
      canvas.style.height = `${size.height}px`;
    }
    const side = Math.round(size.side * dots);
    const values = this.values(matrix, side);
    const image = explorer.palette.image(values, side, explorer.state.shade, matrix.top, matrix.signed);
    const draw = context(this.canvas);
    draw.putImageData(image, Math.round(size.left * dots), Math.round(size.top * dots));
    draw.scale(dots, dots);
    draw.strokeStyle = explorer.palette.of.line;
    draw.strokeRect(size.left - 0.5, size.top - 0.5, size.side + 1, size.side + 1);
    if (!this.small) this.drawAxes(draw);
    this.canvas.style.touchAction = this.view.whole ? "pan-x pan-y" : "none";
    this.drawCursor();
  }

  /** Pooled weights; those of the whole pattern are kept. @param {Matrix} matrix @param {number} side */
  values(matrix, side) {
    if (!this.view.whole) return pool(matrix, this.view, side);
    if (this.overview?.matrix !== matrix || this.overview.side !== side) {
      this.overview = { matrix, side, values: pool(matrix, this.view, side) };
    }
    return this.overview.values;
  }

  /** Token strings where there is room, with positions where there is more; else positions. @param {CanvasRenderingContext2D} draw */
  drawAxes(draw) {
    const { left, top, side } = this.size;
    const { view, prompt, matrix } = this;
    if (!prompt || !matrix) return;
    const { palette } = this.area.explorer;
    const each = side / view.span;
    const tokens = each >= 10 && matrix.block === 1;
    draw.font = FONT;
    draw.fillStyle = palette.of.quiet;
    draw.textBaseline = "middle";
    const positions = tokens && each >= TWO_LINES;
    const text = (/** @type {number} */ at) =>
      tokens ? short(prompt.tokens[at]) : String(Math.round(at * matrix.block));
    const placed = (/** @type {number} */ at, /** @type {number} */ from) => (at + 0.5 - from) * each;
    const ticks = (/** @type {number} */ from) =>
      tokens
        ? range(Math.floor(from), Math.min(view.n, Math.ceil(from + view.span)))
        : this.positionTicks(from);
    const lines = (/** @type {number} */ at) => (positions ? [text(at), String(at)] : [text(at)]);
    for (const at of ticks(view.y)) this.axisText(draw, lines(at), left - 5, top + placed(at, view.y), 0);
    for (const at of ticks(view.x))
      this.axisText(draw, lines(at), left + placed(at, view.x), top + side + 6, -Math.PI / 2);
    draw.fillStyle = palette.of.ink;
    this.axisText(draw, ["query"], 8, top + side / 2, -Math.PI / 2, "center");
    this.axisText(draw, ["key"], left + side / 2, top + side + (tokens ? 60 : 42), 0, "center");
  }

  /** Cells at round positions. @param {number} from first cell shown */
  positionTicks(from) {
    const block = this.matrix?.block ?? 1;
    return ticksOf(Math.ceil(from * block), Math.floor((from + this.view.span - 1) * block), 6)
      .filter((at) => Number.isInteger(at))
      .map((at) => at / block);
  }

  /**
   * @param {CanvasRenderingContext2D} draw @param {string[]} lines @param {number} x @param {number} y
   * @param {number} turn @param {CanvasTextAlign} [align]
   */
  axisText(draw, lines, x, y, turn, align = "right") {
    const { left, top, side } = this.size;
    if (align === "right" && (turn ? x < left || x > left + side : y < top || y > top + side)) return;
    draw.save();
    draw.translate(x, y);
    draw.rotate(turn);
    draw.textAlign = align;
    lines.forEach((line, at) => draw.fillText(line, 0, 11 * (at - (lines.length - 1) / 2)));
    draw.restore();
  }

  drawCursor() {
    const draw = context(this.over);
    const dots = window.devicePixelRatio || 1;
    draw.setTransform(dots, 0, 0, dots, 0, 0);
    draw.clearRect(0, 0, this.size.width, this.over.height);
    this.drawKept(draw);
    const { cursor } = this.view;
    if (!cursor || !this.matrix) return;
    const { left, top, side } = this.size;
    const each = side / this.view.span;
    const [x, y] = [(cursor.key - this.view.x) * each, (cursor.query - this.view.y) * each];
    draw.save();
    draw.beginPath();
    draw.rect(left, top, side, side);
    draw.clip();
    draw.strokeStyle = draw.fillStyle = this.area.explorer.palette.of.mark;
    if (each < 3) {
      draw.fillRect(left + x + each / 2 - 0.5, top, 1, side);
      draw.fillRect(left, top + y + each / 2 - 0.5, side, 1);
    } else {
      draw.strokeRect(left + x - 0.5, top - 5, each + 1, side + 10);
      draw.strokeRect(left - 5, top + y - 0.5, side + 10, each + 1);
    }
    draw.restore();
  }

  /** The kept token's row, or its column if it is kept as a key. @param {CanvasRenderingContext2D} draw */
  drawKept(draw) {
    const { explorer } = this.area;
    const { kept } = explorer.text;
    if (!kept || this.matrix?.block !== 1 || this.prompt !== explorer.prompt) return;
    const { left, top, side } = this.size;
    const across = kept.as === "query";
    const each = side / this.view.span;
    const at = (kept.at - (across ? this.view.y : this.view.x)) * each;
    if (at + each <= 0 || at >= side) return;
    const size = Math.max(1, each);
    draw.fillStyle = draw.strokeStyle = `rgb(${tintOf(explorer.palette, kept.as)})`;
    const box = /** @type {[number, number, number, number]} */ (
      across ? [left, top + at, side, size] : [left + at, top, size, side]
    );
    if (each < 3) draw.fillRect(...box);
    else draw.strokeRect(...box);
    const [x, y] = across ? [left - 6, top + at + size / 2 - 3] : [left + at + size / 2 - 3, top + side];
    draw.fillRect(x, y, 6, 6); // beside the pattern, as large however small the cells are
  }

  /**
   * The cell under a pointer; null outside of the pattern.
   * @param {{clientX: number, clientY: number}} event
   */
  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { left, top, side } = this.size;
    const key = this.view.x + ((event.clientX - box.left - left) / side) * this.view.span;
    const query = this.view.y + ((event.clientY - box.top - top) / side) * this.view.span;
    const inside =
      key >= this.view.x &&
      query >= this.view.y &&
      key < this.view.x + this.view.span &&
      query < this.view.y + this.view.span;
    return inside ? { key, query } : null;
  }

  listen() {
    const { area, canvas } = this;
    const { explorer } = area;
    /** @type {{x: number, y: number, moved: boolean} | null} */
    let held = null;
    const on = (/** @type {string} */ kind, /** @type {(event: any) => void} */ listener) =>
      explorer.on(canvas, kind, listener);
    on("pointerdown", (/** @type {PointerEvent} */ event) => {
      if (event.button === 0) held = { x: event.clientX, y: event.clientY, moved: false };
    });
    on("pointermove", (/** @type {PointerEvent} */ event) => {
      if (held && (held.moved || Math.hypot(event.clientX - held.x, event.clientY - held.y) > 3)) {
        if (!held.moved) canvas.setPointerCapture(event.pointerId);
        const each = this.view.span / this.size.side;
        this.view.move((held.x - event.clientX) * each, (held.y - event.clientY) * each);
        held = { x: event.clientX, y: event.clientY, moved: true };
        area.redraw();
      } else area.hover(this, this.cellAt(event));
    });
    on("pointerup", (/** @type {PointerEvent} */ event) => {
      const cell = this.cellAt(event);
      if (held && !held.moved && cell && this.matrix?.block === 1) area.clicked(this, cell, event.shiftKey);
      held = null;
    });
    on("pointercancel", () => (held = null));
    on("pointerleave", () => area.hover(this, null));
    explorer.on(canvas, "wheel", (event) => this.wheel(/** @type {WheelEvent} */ (event)), {
      passive: false,
    });
    on("dblclick", () => area.resetView(this));
    if (!this.small) on("keydown", (/** @type {KeyboardEvent} */ event) => area.key(this, event));
  }

  /**
   * Zooms about the pointer; outwards beyond the whole pattern the page scrolls.
   * @param {WheelEvent} event
   */
  wheel(event) {
    const cell = this.cellAt(event);
    if (!cell || (event.deltaY > 0 && this.view.whole)) return;
    event.preventDefault();
    const step = event.deltaMode === 1 ? 24 : 1;
    this.view.zoom(
      Math.exp(Math.min(0.5, Math.max(-0.5, 0.002 * step * event.deltaY))),
      cell.key,
      cell.query,
    );
    this.area.redraw();
  }
}

/** @param {number} from @param {number} to */
const range = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

/** A token on an axis: its beginning, white space visible. @param {string} token */
function short(token) {
  const line = token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "·");
  const letters = [...line];
  return letters.length > 8 ? letters.slice(0, 7).join("") + "…" : line;
}

/** @type {[State["together"], string][]} */
const TOGETHER = [
  ["alone", "Alone"],
  ["side by side", "Side by side"],
  ["average", "Average"],
  ["difference", "Difference"],
];
const CLOSER = 0.6;
const NEAR = 24; // cells across, when a cell is gone to
/** @type {[string, string, number][]} text, label and factor */
const ZOOMS = [
  ["+", "Zoom in", CLOSER],
  ["−", "Zoom out", 1 / CLOSER],
  ["Whole", "Whole pattern", Infinity],
];

/** A logarithm needs more steps than a byte has. @param {Precision} precision @returns {Shade[]} */
const shadesOf = (precision) => [
  "square root",
  "linear",
  .../** @type {Shade[]} */ (precision === "half" ? ["logarithmic"] : []),
];

/** The pattern of the chosen head, what stands beside it, and the pinned heads. */
class PatternArea {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    /** @type {PatternPanel[]} */
    this.panels = [];
    /** @type {PatternPanel[]} */
    this.pinned = [];
    /** @type {Map<number, View>} by number of cells */
    this.views = new Map();
    this.redraw = onceAFrame(() => [...this.panels, ...this.pinned].forEach((panel) => panel.draw()));
    this.weighted = el("input", { type: "checkbox", class: "ik-value-weighted" });
    this.shade = menu(shadesOf(explorer.contents.precision), "Colour scale", "ik-shade");
    const prompts = explorer.contents.prompts.map((prompt) => prompt.name);
    this.beside = menu(["nothing", ...prompts], "Show beside it", "ik-beside");
    this.subtract = el("input", { type: "checkbox", class: "ik-subtract" });
    this.subtractLabel = el("label", { hidden: true }, this.subtract, " difference");
    this.pin = button("Pin", "Pin this head", "ik-pin");
    this.together = this.makeTogether();
    this.hint = el("span", { class: "ik-quiet ik-hint" });
    this.compared = el("p", { class: "ik-compared", hidden: true });
    this.status = el("p", { class: "ik-status", role: "status", hidden: true });
    this.row = el("div", { class: "ik-panels" });
    this.readout = el("p", { class: "ik-readout", "aria-live": "polite" });
    this.legend = el("div", { class: "ik-pattern-legend" });
    this.pins = el("div", { class: "ik-pins", "aria-label": "Pinned heads", role: "group", hidden: true });
    const compare = el("div", { class: "ik-row ik-compare" }, this.pin, this.together, this.hint);
    const below = [compare, this.status, this.compared, this.readout, this.row, this.legend, this.pins];
    this.section = el(
      "section",
      { class: "ik-pattern-area", "aria-label": "Pattern" },
      this.makeTools(),
      ...below,
    );
    this.listen();
  }

  /** How the shown head and the pinned ones are seen. */
  makeTogether() {
    const holder = el("span", {
      class: "ik-together",
      role: "radiogroup",
      "aria-label": "The head and the pinned ones",
      hidden: true,
    });
    for (const [value, name] of TOGETHER) {
      const checked = value === "alone";
      const one = el("input", { type: "radio", name: `ik-together-${this.explorer.id}`, value, checked });
      holder.append(el("label", {}, one, " ", el("span", {}, name)));
      this.explorer.on(one, "change", () => this.explorer.set({ together: value }));
    }
    return holder;
  }

  makeTools() {
    const { contents } = this.explorer;
    const zoom = el("span", { class: "ik-buttons" });
    for (const [text, label, factor] of ZOOMS) {
      const made = button(text, label);
      this.explorer.on(made, "click", () => this.zoomAll(factor));
      zoom.append(made);
    }
    const norm = "A × |v W_O|: attention times the norm of what the key's value writes";
    return el(
      "div",
      { class: "ik-row ik-tools" },
      contents.norms ? el("label", { title: norm }, this.weighted, " value-weighted") : "",
      el("label", {}, "Colour ", this.shade),
      contents.prompts.length > 1 ? el("label", {}, "Beside ", this.beside) : "",
      this.subtractLabel,
      zoom,
    );
  }

  listen() {
    const { explorer } = this;
    explorer.on(this.weighted, "change", () => explorer.set({ weighted: this.weighted.checked }));
    explorer.on(this.shade, "change", () => {
      explorer.state.shade = /** @type {Shade} */ (this.shade.selectedOptions[0].text);
      this.redraw();
      this.drawLegend();
    });
    explorer.on(this.beside, "change", () => {
      const chosen = Number(this.beside.value) - 1;
      explorer.set({ beside: chosen < 0 ? null : chosen });
    });
    explorer.on(this.subtract, "change", () => explorer.set({ subtract: this.subtract.checked }));
    explorer.on(this.pin, "click", () => explorer.togglePin(explorer.state.head));
  }

  /** About the cursor if there is one, else the middle. @param {number} factor */
  zoomAll(factor) {
    for (const view of this.views.values()) {
      if (factor === Infinity) view.reset();
      else
        view.zoom(
          factor,
          view.cursor?.key ?? view.x + view.span / 2,
          view.cursor?.query ?? view.y + view.span / 2,
        );
    }
    this.redraw();
  }

  /** @param {PatternPanel} panel */
  resetView(panel) {
    panel.view.reset();
    this.redraw();
  }

  /** @param {number} n */
  viewOf(n) {
    let view = this.views.get(n);
    if (!view) this.views.set(n, (view = new View(n)));
    return view;
  }

  /** Shows these patterns. @param {Shown[]} shown @param {Pinned[]} pinned */
  show(shown, pinned) {
    const used = new Set([...shown, ...pinned].map((one) => one.matrix.n));
    for (const n of this.views.keys()) if (!used.has(n)) this.views.delete(n);
    this.fill(this.panels, shown.length, this.row, false);
    this.row.classList.toggle("ik-two", shown.length > 1);
    shown.forEach((one, i) =>
      this.panels[i].set(one.matrix, one.prompt, one.name, this.viewOf(one.matrix.n)),
    );
    this.showPins(pinned);
    this.drawLegend();
    this.sayDifference();
    this.say();
  }

  /** How far two patterns are apart, and a way to the cell where they are furthest apart. */
  sayDifference() {
    const [panel] = this.panels;
    const { matrix, prompt } = panel;
    this.compared.hidden = !matrix?.signed || matrix.block > 1;
    if (this.compared.hidden || !matrix || !prompt) return;
    const { without, all, size, query, key } = furthest(matrix);
    const what = matrix.weighted
      ? "Absolute differences of a query's products (each a share of its head's largest)"
      : "Absolute differences of a query's weights";
    const said =
      `${what}, added up, on average over queries: ${number(without.apart)} without the first token ` +
      `(0 if alike, ${number(without.most)} if no key is shared), ${number(all.apart)} with it ` +
      `(${number(all.most)} if no key is shared).`;
    if (!size) {
      this.compared.replaceChildren(said);
      return;
    }
    const go = button("Go there", `Go to query ${query}, key ${key}`, "ik-furthest");
    go.onclick = () => this.lookAt(panel, query, key);
    const [from, to] = [query, key].map((at) => `${at} ${quoted(prompt.tokens[at])}`);
    this.compared.replaceChildren(
      `${said} Largest without the first token: query ${from} -> key ${to}, ${readingText(matrix, query, key)} `,
      go,
    );
  }

  /** Zooms to a cell, keeps its query and sets the cursor there. @param {PatternPanel} panel @param {number} query @param {number} key */
  lookAt(panel, query, key) {
    const { view } = panel;
    if (panel.prompt === this.explorer.prompt) this.explorer.text.keep(query, "query");
    view.cursor = { query, key };
    view.span = Math.min(view.n, NEAR);
    view.move(key + 0.5 - view.span / 2 - view.x, query + 0.5 - view.span / 2 - view.y);
    this.redraw();
    this.cursorMoved(panel);
  }

  /** @param {PatternPanel[]} panels @param {number} count @param {HTMLElement} into @param {boolean} small */
  fill(panels, count, into, small) {
    while (panels.length > count) panels.pop()?.figure.remove();
    while (panels.length < count) {
      const panel = new PatternPanel(this, small);
      panels.push(panel);
      into.append(panel.figure);
    }
  }

  /** @param {Pinned[]} pinned */
  showPins(pinned) {
    this.fill(this.pinned, pinned.length, this.pins, true);
    this.pins.hidden = !pinned.length;
    pinned.forEach((one, i) => {
      const panel = this.pinned[i];
      const name = this.explorer.nameOf(one.index);
      panel.set(one.matrix, one.prompt, name, this.viewOf(one.matrix.n));
      const [go, away] = [
        button(name, `Choose ${name}`, "ik-go"),
        button("Unpin", `Unpin ${name}`, "ik-unpin"),
      ];
      go.onclick = () => this.explorer.choose(one.index);
      away.onclick = () => this.explorer.togglePin(one.index);
      panel.title.replaceChildren(go, away);
    });
  }

  drawLegend() {
    const matrix = this.panels[0]?.matrix;
    if (!matrix) return;
    const { palette, state } = this.explorer;
    const stops = matrix.signed ? palette.of.signed : palette.of.weight;
    const ramp = `linear-gradient(to right, ${stops.join(", ")})`;
    const values = matrix.signed
      ? [-1, -0.25, 0, 0.25, 1]
      : state.shade === "logarithmic"
        ? [1e-4, 1e-3, 0.01, 0.1, 1]
        : [0, 0.1, 0.25, 0.5, 1];
    const ticks = values.map((value) => {
      const place = placeOnRamp(value, state.shade);
      return /** @type {[number, string]} */ ([
        matrix.signed ? (place + 1) / 2 : place,
        number(value * matrix.top),
      ]);
    });
    const products = "share of the largest product, A × |v W_O|: attention times the norm of what the key's value writes";
    const what = matrix.weighted ? products : "attention";
    const said = matrix.signed ? `difference in ${what} ` : `${what} `;
    const steps = matrix.below === BELOW.plain && !matrix.weighted ? "weights are stored in steps of 1/255 (.0039)" : "";
    this.legend.replaceChildren(el("span", {}, said), legend(ramp, ticks), el("span", {}, steps));
  }

  /** @param {PatternPanel} panel @param {{query: number, key: number} | null} place */
  hover(panel, place) {
    const cursor = place && { query: Math.floor(place.query), key: Math.floor(place.key) };
    const { view } = panel;
    if (cursor && view.cursor && cursor.query === view.cursor.query && cursor.key === view.cursor.key) return;
    view.cursor = cursor;
    this.cursorMoved(panel);
  }

  drawCursors() {
    for (const one of [...this.panels, ...this.pinned]) one.drawCursor();
  }

  /** @param {PatternPanel} panel */
  cursorMoved(panel) {
    for (const one of [...this.panels, ...this.pinned]) if (one.view === panel.view) one.drawCursor();
    this.say(panel);
    const whole = panel.matrix?.block === 1 && panel.prompt === this.explorer.prompt;
    this.explorer.text.markCell(whole ? panel.view.cursor : null);
  }

  /** What the cursor is on, in words. @param {PatternPanel} [panel] */
  say(panel = this.panels[0]) {
    const cursor = panel?.view.cursor;
    if (!cursor || !panel.matrix || !panel.prompt) {
      this.sayKept();
      return;
    }
    const parts = [cellText(panel.matrix, panel.prompt, cursor)];
    // a pinned head may be large too, and a difference names what it is of
    const named = new Set([panel.name, ...(panel.matrix.parts ?? []).map((part) => part.name)]);
    for (const one of [...this.panels, ...this.pinned]) {
      if (named.has(one.name) || one.view !== panel.view || !one.matrix) continue;
      named.add(one.name);
      parts.push(` · ${one.name} ${weightText(one.matrix, cursor.query, cursor.key)}`);
    }
    this.readout.textContent = parts.join("") + massText(panel.matrix, cursor.query);
  }

  /** The strongest of the kept token, or how to begin. */
  sayKept() {
    this.readout.textContent =
      this.explorer.text.describeKept() || "Point at the pattern, or move over it with the arrow keys.";
  }

  /**
   * Keeps the query in the text, or the key.
   * @param {PatternPanel} panel @param {{query: number, key: number}} cell @param {boolean} shifted
   */
  clicked(panel, cell, shifted) {
    if (panel.prompt !== this.explorer.prompt) return;
    this.explorer.text.keep(Math.floor(shifted ? cell.key : cell.query), shifted ? "key" : "query");
  }

  /** @param {PatternPanel} panel @param {KeyboardEvent} event */
  key(panel, event) {
    if (event.altKey || event.metaKey || event.ctrlKey || !panel.matrix) return;
    const { view, matrix } = panel;
    const cursor = view.cursor ?? strongestIn(matrix, view);
    const step = event.shiftKey ? 10 : 1;
    /** @type {Record<string, [number, number]>} */
    const moves = {
      ArrowUp: [-step, 0],
      ArrowDown: [step, 0],
      ArrowLeft: [0, -step],
      ArrowRight: [0, step],
      Home: [0, -matrix.n],
      End: [0, matrix.n],
    };
    const move = moves[event.key];
    if (move) {
      const query = Math.min(matrix.n - 1, Math.max(0, cursor.query + (view.cursor ? move[0] : 0)));
      const key = Math.min(matrix.n - 1, Math.max(0, cursor.key + (view.cursor ? move[1] : 0)));
      view.cursor = { query, key };
      view.show(query, key);
      this.redraw();
      this.cursorMoved(panel);
    } else if (event.key === "+" || event.key === "=")
      view.zoom(CLOSER, cursor.key + 0.5, cursor.query + 0.5);
    else if (event.key === "-" || event.key === "_")
      view.zoom(1 / CLOSER, cursor.key + 0.5, cursor.query + 0.5);
    else if (event.key === "0") view.reset();
    else if (event.key === "Enter" && view.cursor && matrix.block === 1)
      this.clicked(panel, view.cursor, event.shiftKey);
    else return;
    event.preventDefault();
    this.redraw();
  }
}

/**
 * A weight as read: what a stored zero means, in words.
 * @param {Matrix} matrix
 * @param {number} query
 * @param {number} key
 */
export function weightText(matrix, query, key) {
  if (key >= matrix.keys(query)) return "no attention to later tokens";
  const weight = matrix.at(query, key);
  if (weight === 0 && matrix.scale && !matrix.scale[key]) return "0";
  if (weight === 0) return matrix.weighted && !matrix.signed ? `attention ${matrix.below}` : matrix.below;
  return (matrix.signed && weight > 0 ? "+" : "") + number(weight);
}

/**
 * A weight as read; of a difference, what it is of too: "L1H1 .10 − L1H7 .90 = −.80".
 * @param {Matrix} matrix
 * @param {number} query
 * @param {number} key
 */
export function readingText(matrix, query, key) {
  const said = weightText(matrix, query, key);
  if (!matrix.parts || key >= matrix.keys(query)) return said;
  const [first, second] = matrix.parts.map((part) => `${part.name} ${weightText(part.matrix, query, key)}`);
  return `${first} − ${second} = ${said}`;
}

/** @param {Matrix} matrix @param {Prompt} prompt @param {{query: number, key: number}} cell */
function cellText(matrix, prompt, cell) {
  const weight = readingText(matrix, cell.query, cell.key);
  if (matrix.block > 1) {
    const [queries, keys] = [cell.query, cell.key].map((at) => {
      const [first, last] = [Math.floor(at * matrix.block), Math.floor((at + 1) * matrix.block) - 1];
      return first < last ? `${first} to ${last}` : String(first);
    });
    const what = matrix.signed ? "difference of the largest weights" : "largest weight";
    return `queries ${queries}, keys ${keys}: ${what} ${weight}`;
  }
  const [query, key] = [cell.query, cell.key].map((at) => `${at} ${quoted(prompt.tokens[at])}`);
  return `query ${query} -> key ${key}: ${weight}`;
}

/**
 * The query's attention that rounding took, if it is worth a word.
 * @param {Matrix} matrix
 * @param {number} query
 */
function massText(matrix, query) {
  const mass = matrix.mass?.[query] ?? 0;
  return mass >= 0.005 ? ` (of this query's attention ${number(mass)} lies in weights ${matrix.below})` : "";
}

// ------------------------------------------------------------------------------------------------------ text

const HOW_TO_POINT =
  "Point at a token, or reach the text with Tab and move with the arrow keys. " +
  "Shift turns the direction round; a click keeps the token.";
const ALL_AT_ONCE = 1000; // tokens up to which every token gets its element
const CHUNK = 200;

/**
 * The prompt as text: a token that is pointed at colours the keys it attends to, or the queries that attend
 * to it.
 */
class TextView {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    this.box = el("div", {
      class: "ik-text",
      tabindex: 0,
      role: "group",
      "aria-label": "Text: arrow keys move over the tokens, Enter keeps one",
    });
    this.readout = el("p", { class: "ik-text-readout", "aria-live": "polite" });
    this.way = menu(["keys it attends to", "queries that attend to it"], "A token colours", "ik-way");
    this.title = el("span", { class: "ik-name" }, "Text");
    this.number = el("input", {
      type: "number",
      class: "ik-at",
      min: 0,
      title: "keeps the token at this position",
    });
    this.position = el("span", {});
    this.refused = el("span", { class: "ik-refused ik-at-message", role: "status" });
    this.scale = el("div", { class: "ik-text-scale" });
    this.strongest = el("div", { class: "ik-strongest", hidden: true });
    this.votes = el("div", { class: "ik-head-votes" });
    this.section = el(
      "section",
      { class: "ik-text-area", "aria-label": "Text" },
      el(
        "div",
        { class: "ik-row" },
        this.title,
        el("label", {}, "A token colours the ", this.way),
      ),
      this.scale,
      this.readout,
      this.box,
      this.strongest,
      this.votes,
    );
    /** @type {Map<number, HTMLElement>} tokens that have an element now */
    this.spans = new Map();
    /** @type {{begin: number, end: number, element: HTMLElement}[]} */
    this.chunks = [];
    /** @type {{at: number, as: "query" | "key"} | null} */
    this.kept = null;
    /** @type {number | null} */
    this.pointed = null;
    this.shifted = false;
    /** @type {[kept: object | null, matrix: Matrix | null]} what the strongest are listed of */
    this.listed = [null, null];
    /** @type {HTMLElement[]} */
    this.marked = [];
    /** @type {IntersectionObserver | null} */
    this.near = null;
    this.recolour = onceAFrame(() => this.colour());
    this.listen();
  }

  /** @param {Prompt} prompt */
  build(prompt) {
    this.close();
    this.kept = this.pointed = null;
    this.spans.clear();
    this.roles = rolesOf(prompt);
    const n = prompt.tokens.length;
    this.number.value = "";
    this.number.max = String(n - 1);
    this.number.placeholder = n > 1 ? `0 to ${n - 1}` : "0";
    this.sayPosition();
    const size = n > ALL_AT_ONCE ? CHUNK : n;
    this.chunks = [];
    for (let begin = 0; begin < n; begin += size) {
      this.chunks.push({ begin, end: Math.min(n, begin + size), element: el("span", { class: "ik-chunk" }) });
    }
    this.content = el(
      "div",
      { class: "ik-content", dir: "auto" },
      ...this.chunks.map((chunk) => chunk.element),
    );
    this.box.replaceChildren(this.content);
    this.box.scrollTop = 0;
    if (n > ALL_AT_ONCE) this.watchChunks();
    else this.chunks.forEach((chunk) => this.fill(chunk));
    this.colour();
  }

  /** Elements for the tokens near what is seen; the other text is plain, so that all of it can be copied. */
  watchChunks() {
    this.near = new IntersectionObserver(
      (seen) => {
        for (const one of seen) {
          const chunk = this.chunks.find((each) => each.element === one.target);
          if (chunk && one.isIntersecting) this.fill(chunk);
          else if (chunk) this.empty(chunk);
        }
        this.colour();
      },
      { root: this.box, rootMargin: "400px" },
    );
    for (const chunk of this.chunks) {
      this.empty(chunk);
      this.near.observe(chunk.element);
    }
  }

  /** @param {{begin: number, end: number, element: HTMLElement}} chunk */
  empty({ begin, end, element }) {
    if (element.firstChild && !this.spans.has(begin)) return;
    element.textContent = this.explorer.prompt.tokens.slice(begin, end).join("");
    for (let at = begin; at < end; at++) this.spans.delete(at);
  }

  /** @param {{begin: number, end: number, element: HTMLElement}} chunk */
  fill({ begin, end, element }) {
    if (this.spans.has(begin)) return;
    const spans = range(begin, end).map((at) => this.makeToken(at));
    element.replaceChildren(...spans);
    spans.forEach((span, i) => this.spans.set(begin + i, span));
  }

  /** @param {number} at */
  makeToken(at) {
    const token = this.explorer.prompt.tokens[at];
    const role = this.roles?.get(at);
    const kinds = ["ik-token"];
    if (token === "") kinds.push("ik-nothing");
    else if (/^[\n\r]+$/.test(token)) kinds.push("ik-newline");
    else if (/^\s+$/.test(token)) kinds.push("ik-space");
    else if (/^\s/.test(token)) kinds.push("ik-spaced");
    if (role) kinds.push(...role.kinds);
    const span = el(
      "span",
      { class: kinds.join(" "), "data-at": at, dir: role?.special ? "ltr" : null },
      ...wordIn(token),
    );
    if (role && role.label >= 0) span.style.setProperty("--ik-class", classColour(role.label));
    return span;
  }

  listen() {
    const { explorer, box } = this;
    const at = (/** @type {Event} */ event) => {
      const span =
        event.target instanceof Element
          ? /** @type {HTMLElement | null} */ (event.target.closest(".ik-token"))
          : null;
      return span ? Number(span.dataset.at) : null;
    };
    explorer.on(box, "pointermove", (event) => {
      this.point(at(event), /** @type {PointerEvent} */ (event).shiftKey);
    });
    explorer.on(box, "pointerleave", () => this.point(null, false));
    explorer.on(box, "click", (event) => {
      const token = at(event);
      const selecting = document.getSelection()?.isCollapsed === false;
      if (token === null || selecting) return;
      if (this.kept?.at === token) this.release();
      else this.keep(token, this.direction(/** @type {MouseEvent} */ (event).shiftKey));
    });
    explorer.on(this.way, "change", () => {
      this.sayPosition();
      this.recolour();
    });
    explorer.on(this.number, "change", () => this.keepNumber());
    explorer.on(box, "keydown", (event) => this.key(/** @type {KeyboardEvent} */ (event)));
    for (const kind of ["keydown", "keyup"]) {
      explorer.on(document, kind, (event) => {
        const { key } = /** @type {KeyboardEvent} */ (event);
        if (key === "Shift" && this.pointed !== null) this.point(this.pointed, kind === "keydown");
        if (key === "Escape" && kind === "keydown" && this.kept) this.release();
      });
    }
  }

  /** @param {boolean} shifted @returns {"query" | "key"} what the token is taken as */
  direction(shifted) {
    return (this.way.value === "1") !== shifted ? "key" : "query";
  }

  /** @param {number | null} at @param {boolean} shifted */
  point(at, shifted) {
    if (at === this.pointed && shifted === this.shifted) return;
    this.pointed = at;
    this.shifted = shifted;
    this.recolour();
  }

  /** @param {number} at @param {"query" | "key"} as */
  keep(at, as) {
    this.kept = { at, as };
    this.pointed = null;
    this.explorer.root.dataset.kept = String(at);
    this.number.value = String(at);
    this.sayPosition();
    this.bringIntoView(at);
    this.colour();
    this.explorer.pattern.drawCursors();
    this.explorer.pattern.sayKept();
  }

  /** What the token at a position is kept as, and if the position typed is none of the prompt's. */
  sayPosition(why = "") {
    const as = this.kept?.as ?? this.direction(false);
    this.position.textContent = as === "query" ? "Query position " : "Key position ";
    this.refused.textContent = why;
    this.number.setAttribute("aria-invalid", String(Boolean(why)));
  }

  /** Keeps the token at the position that was typed, if there is one. */
  keepNumber() {
    const { value } = this.number;
    const n = this.explorer.prompt.tokens.length;
    const at = value === "" ? -1 : Number(value);
    if (Number.isInteger(at) && at >= 0 && at < n) this.keep(at, this.kept?.as ?? this.direction(false));
    else this.sayPosition(noPosition(value, n));
  }

  /** Keeps what was kept on another prompt, where this one reaches so far. @param {TextView["kept"]} kept */
  keepAgain(kept) {
    const n = this.explorer.prompt.tokens.length;
    if (!kept) return;
    if (kept.at < n) this.keep(kept.at, kept.as);
    else this.sayPosition(noPosition(String(kept.at), n));
  }

  release() {
    this.kept = null;
    delete this.explorer.root.dataset.kept;
    this.number.value = "";
    this.sayPosition();
    this.colour();
    this.explorer.pattern.drawCursors();
    this.explorer.pattern.say();
  }

  /** @param {number} at */
  bringIntoView(at) {
    const chunk = this.chunks.find((each) => each.begin <= at && at < each.end);
    if (chunk) this.fill(chunk);
    const span = this.spans.get(at);
    if (span) reveal(this.box, span);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey || event.metaKey || event.ctrlKey) return;
    const last = this.explorer.prompt.tokens.length - 1;
    const now = this.pointed ?? this.kept?.at ?? -1;
    /** @type {Record<string, number>} */
    const moves = {
      ArrowRight: now + 1,
      ArrowLeft: now - 1,
      ArrowDown: now + 10,
      ArrowUp: now - 10,
      Home: 0,
      End: last,
    };
    if (event.key === "Enter" || event.key === " ") {
      if (this.pointed === null || this.kept?.at === this.pointed) this.release();
      else this.keep(this.pointed, this.direction(event.shiftKey));
    } else if (event.key in moves) {
      const to = Math.min(last, Math.max(0, moves[event.key]));
      this.bringIntoView(to);
      this.point(to, event.shiftKey);
    } else return;
    event.preventDefault();
  }

  /** What is coloured now: the token pointed at, else the kept one. */
  shown() {
    if (this.pointed !== null) return { at: this.pointed, as: this.direction(this.shifted) };
    return this.kept;
  }

  /** Colours the tokens by the chosen head's weights. */
  colour() {
    const shown = this.shown();
    const matrix = this.explorer.chosen;
    const usable = shown && matrix && matrix.block === 1 && matrix.n === this.explorer.prompt.tokens.length;
    const weights = usable ? (shown.as === "query" ? matrix.row(shown.at) : matrix.column(shown.at)) : null;
    const { palette } = this.explorer;
    const tint = tintOf(palette, shown?.as ?? "query");
    for (const [at, span] of this.spans) {
      const weight = weights ? Math.sqrt(Math.min(1, weights[at])) : 0;
      const colour = weight > 0.04 ? `rgba(${tint}, ${weight.toFixed(2)})` : "";
      if (span.style.backgroundColor !== colour) span.style.backgroundColor = colour;
      const here = shown?.at === at;
      if (span.classList.contains("ik-current") !== here) span.classList.toggle("ik-current", here);
    }
    this.readout.textContent = this.describe(shown, matrix, weights);
    this.drawScale(shown?.as ?? this.direction(false), Boolean(matrix?.weighted));
    this.listStrongest(matrix);
  }

  /** What the colours behind the tokens mean. @param {"query" | "key"} as @param {boolean} weighted */
  drawScale(as, weighted) {
    const tint = tintOf(this.explorer.palette, as);
    const said = `${as === "query" ? "keys it attends to" : "queries that attend to it"}, by ${weighted ? "share of the largest product" : "weight"} `;
    if (this.scale.dataset.drawn === tint + said) return;
    this.scale.dataset.drawn = tint + said;
    const ticks = [0, 0.1, 0.25, 0.5, 1].map(
      (weight) => /** @type {[number, string]} */ ([Math.sqrt(weight), number(weight)]),
    );
    const ramp = `linear-gradient(to right, rgba(${tint}, 0), rgba(${tint}, 1))`;
    this.scale.replaceChildren(el("span", {}, said), legend(ramp, ticks));
  }

  /** The ten strongest of the kept token, each a way to its cell. @param {Matrix | null} matrix */
  listStrongest(matrix) {
    const { kept } = this;
    if (this.listed[0] === kept && this.listed[1] === matrix) return;
    this.listed = [kept, matrix];
    const { tokens } = this.explorer.prompt;
    this.strongest.hidden = !kept || matrix?.block !== 1 || matrix.n !== tokens.length;
    if (this.strongest.hidden || !kept || !matrix) return;
    const weights = kept.as === "query" ? matrix.row(kept.at) : matrix.column(kept.at);
    const list = el("ol", { class: "ik-ten" });
    for (const at of largest(weights, 10)) {
      const text = `${at} ${quoted(tokens[at])} ${number(weights[at])}`;
      const go = button(text, text, "ik-pair");
      const [query, key] = kept.as === "query" ? [kept.at, at] : [at, kept.at];
      go.onclick = () => this.explorer.pointAt(query, key);
      list.append(el("li", {}, go));
    }
    const what = kept.as === "query" ? "Strongest keys of query" : "Strongest queries of key";
    const weighted = matrix.weighted ? ", value-weighted" : "";
    const said = weighted + (list.childElementCount ? "" : `: none, every weight is ${matrix.below}`);
    this.strongest.replaceChildren(
      el("p", { class: "ik-quiet" }, `${what} ${kept.at} ${quoted(tokens[kept.at])}${said}`),
      list,
    );
  }

  /**
   * @param {{at: number, as: "query" | "key"} | null} shown
   * @param {Matrix | null} matrix
   * @param {Float32Array | null} weights
   */
  describe(shown, matrix, weights) {
    const { tokens } = this.explorer.prompt;
    if (matrix && matrix.block > 1)
      return "This head is not stored whole on this prompt: the text cannot be coloured.";
    if (!shown) return HOW_TO_POINT;
    if (!weights || !matrix) return `${shown.as} ${shown.at} ${quoted(tokens[shown.at])}`;
    return this.strongestOf(shown, matrix, weights, 3, "");
  }

  /**
   * A token and the largest weights of it, in words.
   * @param {{at: number, as: "query" | "key"}} shown @param {Matrix} matrix @param {Float32Array} weights
   * @param {number} count how many are named
   * @param {string} of whose weights they are
   */
  strongestOf(shown, matrix, weights, count, of) {
    const { tokens } = this.explorer.prompt;
    const named = (/** @type {number} */ at) => `${at} ${quoted(tokens[at])}`;
    const some = largest(weights, count + 1);
    const found = some.slice(0, count).map((at) => `${named(at)} ${number(weights[at])}`);
    const list = (found.join(", ") || "none") + (some.length > count ? ", ..." : "");
    const weighted = matrix.weighted ? " (value-weighted)" : "";
    if (shown.as === "key") return `key ${named(shown.at)}${of} <- queries${weighted} ${list}`;
    return `query ${named(shown.at)}${of} -> keys${weighted} ${list}${massText(matrix, shown.at)}`;
  }

  /** The kept token's strongest by the chosen head; empty if none is kept, or the head is not stored whole. */
  describeKept() {
    const { kept } = this;
    const matrix = this.explorer.chosen;
    if (!kept || matrix?.block !== 1 || matrix.n !== this.explorer.prompt.tokens.length) return "";
    const weights = kept.as === "query" ? matrix.row(kept.at) : matrix.column(kept.at);
    const of = ` of ${this.explorer.nameOf(this.explorer.state.head)}`;
    return this.strongestOf(kept, matrix, weights, 5, of);
  }

  /**
   * Marks the query and the key under the cursor of the pattern.
   * @param {{query: number, key: number} | null} cell
   */
  markCell(cell) {
    for (const span of this.marked) span.classList.remove("ik-at-query", "ik-at-key");
    this.marked = [];
    if (!cell) return;
    for (const [at, kind] of /** @type {const} */ ([
      [cell.query, "ik-at-query"],
      [cell.key, "ik-at-key"],
    ])) {
      const span = this.spans.get(at);
      if (!span) continue;
      span.classList.add(kind);
      this.marked.push(span);
    }
  }

  /** The votes of a head for each label (few-shot prompts). */
  showVotes() {
    const { prompt, state } = this.explorer;
    const weights = prompt.weights?.[state.head];
    this.votes.hidden = !prompt.demonstrations.length;
    if (this.votes.hidden) return;
    this.votes.replaceChildren(
      ...(weights
        ? votesOf(prompt, weights, this.explorer.nameOf(state.head))
        : ["The weights of the demonstrations are not stored for this head."]),
    );
  }

  close() {
    this.near?.disconnect();
    this.near = null;
  }
}

/** @param {string} value what was asked for @param {number} n tokens of the prompt */
const noPosition = (value, n) =>
  `${value ? quoted(value) : "That"} is none of this prompt's positions: they go from 0 to ${n - 1}.`;

/**
 * A token's leading white space and its word: a line may break between them, and the outline is the word's alone.
 * @param {string} token @returns {(string | HTMLElement)[]}
 */
function wordIn(token) {
  const word = token.trimStart();
  if (!word || word === token) return [token];
  return [token.slice(0, token.length - word.length), el("span", { class: "ik-word" }, word)];
}

/**
 * Special tokens, demonstrations and labels by position.
 * @param {Prompt} prompt
 */
function rolesOf(prompt) {
  /** @type {Map<number, {kinds: string[], label: number, special: boolean}>} */
  const roles = new Map();
  for (const [begin, end, position, label] of prompt.demonstrations) {
    for (let at = begin; at < end; at++) {
      const kinds = ["ik-demonstration", ...(at === begin ? ["ik-first"] : [])];
      roles.set(at, { kinds, label, special: false });
    }
    if (position >= 0)
      roles.set(position, {
        kinds: [...(roles.get(position)?.kinds ?? []), "ik-label"],
        label,
        special: false,
      });
  }
  for (const at of prompt.special) {
    const role = roles.get(at);
    roles.set(at, { kinds: [...(role?.kinds ?? []), "ik-special"], label: role?.label ?? -1, special: true });
  }
  return roles;
}

/** @param {Prompt} prompt @param {number[]} weights @param {string} name */
function votesOf(prompt, weights, name) {
  const what = "Each label's share of the last token's attention to the demonstrations.";
  const none = weights.some((weight) => weight > 0) ? "" : " It attends to no demonstration.";
  return [
    el("p", { class: "ik-name" }, `Votes of ${name}`),
    el("p", { class: "ik-quiet" }, what + none),
    shareList(prompt, weights),
    el("details", {}, el("summary", {}, "Weight of each demonstration"), demonstrationList(prompt, weights)),
  ];
}

/** A bar for each label. @param {Prompt} prompt @param {number[]} weights */
function shareList(prompt, weights) {
  const classes = prompt.demonstrations.map((one) => one[3]);
  const shares = votes(weights, classes, prompt.labels.length);
  const rows = prompt.labels.map((label, at) => {
    const bar = el("span", { class: "ik-bar" });
    bar.style.width = `${100 * shares[at]}%`;
    bar.style.setProperty("--ik-class", classColour(at));
    const said = [
      at === prompt.target ? "right answer" : "",
      at === prompt.answer ? "the model's answer" : "",
    ].filter(Boolean);
    const share = number(shares[at]) + (said.length ? ` (${said.join(", ")})` : "");
    return el("li", {}, el("bdi", {}, label), el("span", { class: "ik-track" }, bar), el("span", {}, share));
  });
  return el("ul", { class: "ik-shares" }, ...rows);
}

/** Text, label and weight of each demonstration. @param {Prompt} prompt @param {number[]} weights */
function demonstrationList(prompt, weights) {
  const rows = prompt.demonstrations.map(([begin, end, position, label], at) => {
    const text = prompt.tokens.slice(begin, position > begin ? position : end).join("");
    const name = el("b", {}, prompt.labels[label] ?? "");
    name.style.setProperty("--ik-class", classColour(Math.max(0, label)));
    return el("li", {}, el("bdi", {}, text.trim()), " ", name, ` ${number(weights[at])}`);
  });
  return el("ol", { class: "ik-demonstrations" }, ...rows);
}

/** Eight colours, in turn. @param {number} label */
const classColour = (label) => `var(--ik-class-${label % 8})`;

// ------------------------------------------------------------------------------------------------------ card

const MEASURED_ON = "The prompts that scores were measured on need not be those shown here.";

/** The numbers of the chosen head, and its strongest pairs. */
/** A head, and how far its pattern is from the chosen one's, without the first token and with it. @typedef {{index: number, without: number, all: number}} Alike */

const ALIKE = 5; // heads that are listed
/** What their numbers are. @param {boolean} weighted */
const alikeBy = (weighted) =>
  "Heads whose attention on this prompt is nearest to this head's: absolute differences of a query's " +
  `${weighted ? "products (each a share of its head's largest)" : "weights"}, added up, on average over queries, ` +
  "without the first token (in brackets with it); 0 if alike.";

class Card {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    this.section = el("section", { class: "ik-card", "aria-label": "The head" });
    this.abouts = this.makeAbouts();
  }

  /** What each score is; left open from head to head once the reader has opened it. */
  makeAbouts() {
    const known = this.explorer.contents.scores.filter((score) => score.about);
    const list = el("dl");
    for (const { name, about } of known) list.append(el("dt", {}, name), el("dd", {}, about));
    const summary = el("summary", {}, "What these scores are");
    return known.length ? el("details", { class: "ik-abouts" }, summary, list) : "";
  }

  draw() {
    const { contents, state } = this.explorer;
    const name = this.explorer.nameOf(state.head);
    const link = contents.live
      ? ""
      : el(
          "a",
          { href: `#${name}`, class: "ik-link", title: "address of this head on this page" },
          `#${name}`,
        );
    this.section.replaceChildren(
      el("div", { class: "ik-row" }, el("span", { class: "ik-name" }, name), link),
      contents.scores.length ? this.scores() : el("p", { class: "ik-quiet" }, "No scores were given."),
      this.pairs(),
      this.alike(),
    );
  }

  /** A way to the heads whose patterns are most alike; every pattern is read for it, so it has to be asked for. */
  alike() {
    const { head, weighted } = this.explorer.state;
    const name = this.explorer.nameOf(head);
    const ask = button("Most alike", `Find the heads most alike to ${name}`, "ik-find-alike");
    const said = el("p", { class: "ik-quiet", role: "status" });
    const list = el("ol", { class: "ik-pairs ik-alike" });
    ask.onclick = async () => {
      ask.disabled = true;
      said.textContent = "Reading the patterns of all heads …";
      try {
        const found = await this.explorer.mostAlike(ALIKE);
        list.replaceChildren(...found.map((one) => el("li", {}, this.wayTo(one))));
        said.textContent = found.length ? alikeBy(weighted) : "No other head is stored whole on this prompt.";
      } catch (error) {
        said.textContent = error instanceof Error ? error.message : String(error);
      }
      ask.disabled = false;
    };
    return el("div", {}, ask, said, list);
  }

  /** @param {Alike} one */
  wayTo({ index, without, all }) {
    const text = `${this.explorer.nameOf(index)} ${number(without)} (${number(all)})`;
    const go = button(text, `Choose ${text}`, "ik-pair");
    go.onclick = () => this.explorer.choose(index);
    return go;
  }

  scores() {
    const { contents, state } = this.explorer;
    const titles = ["score", "mean", "control", "excess", "passes"];
    const head = el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)));
    const rows = contents.scores.map((score) => scoreRow(score, state.head));
    const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows));
    const untested = contents.scores.filter((score) => score.passes[state.head] === null && score.untested);
    return el(
      "div",
      {},
      el("div", { class: "ik-table", tabindex: 0, role: "group", "aria-label": "Scores of the head" }, table),
      ...untested.map((score) => el("p", { class: "ik-quiet" }, `${score.name} untested: ${score.untested}.`)),
      contents.scores.some((score) => score.about) ? el("p", { class: "ik-quiet" }, MEASURED_ON) : "",
      this.abouts,
    );
  }

  pairs() {
    const { contents, state } = this.explorer;
    const strongest = contents.strongest[state.head] ?? [];
    if (!strongest.length) return el("span");
    const list = el("ol", { class: "ik-pairs" });
    for (const [prompt, query, key, weight] of strongest) {
      const { tokens, name } = contents.prompts[prompt];
      const where = contents.prompts.length > 1 ? `${name}: ` : "";
      const pair = `${query} ${quoted(tokens[query])} -> ${key} ${quoted(tokens[key])}`;
      const text = `${where}${pair} ${number(weight)}`;
      const go = button(text, text, "ik-pair");
      go.onclick = () => this.explorer.goTo(prompt, query, key);
      list.append(el("li", {}, go));
    }
    const by =
      contents.ranked === "weight"
        ? "the attention weight"
        : "weight times the norm of what the key's value writes, |v W_O|; the number shown is the weight";
    const said = `Strongest query -> key pairs${contents.prompts.length > 1 ? " over all prompts" : ""}, ranked by ${by}.`;
    return el(
      "div",
      {},
      el("p", { class: "ik-quiet" }, `${said} Pairs with the first token are left out.`),
      list,
    );
  }
}

/**
 * A head's row of the table: score, mean, control or chance, excess, whether it passes.
 * @param {Score} score @param {number} at
 */
function scoreRow(score, at) {
  const control = score.control?.[at] ?? null;
  const chance = score.chance?.[at] ?? null;
  const against = control === null && chance !== null ? `${number(chance)} (chance)` : number(control);
  const passes = score.passes[at];
  const verdict = passes === null ? "untested" : passes ? "yes" : "no";
  const threshold = score.threshold?.[at] ?? null;
  const over = `${passes ? ">" : "≤"} ${number(threshold)}`;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, ...breakable(score.name), " ", el("span", { class: "ik-quiet" }, score.unit)),
    withInterval(score.mean[at], score.low?.[at], score.high?.[at]),
    el("td", {}, against),
    withInterval(score.excess?.[at], score.excess_low?.[at], score.excess_high?.[at]),
    el(
      "td",
      {},
      verdict,
      passes === null || threshold === null ? "" : el("span", { class: "ik-quiet" }, over),
    ),
  );
}

/** A name whose lines may break after its underscores. @param {string} name */
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, at) => (at ? [el("wbr"), part] : [part]));

/**
 * A cell of a value, its interval in small.
 * @param {number | null | undefined} value
 * @param {number | null | undefined} low
 * @param {number | null | undefined} high
 */
const withInterval = (value, low, high) =>
  el("td", {}, number(value), el("span", { class: "ik-quiet" }, interval(low, high)));

// -------------------------------------------------------------------------------------------------- explorer

/**
 * @typedef {object} State
 * @property {number} head
 * @property {number} prompt
 * @property {number} score
 * @property {"mean" | "excess"} variable
 * @property {Shade} shade
 * @property {boolean} weighted
 * @property {number | null} beside
 * @property {boolean} subtract
 * @property {number[]} pins
 * @property {"alone" | "side by side" | "average" | "difference"} together how the head and the pinned ones are shown
 */

const RANKED = 10; // heads that the ranking names
const ORDERS = { largest: "", smallest: ", lowest first", size: ", by size" };

/**
 * How many heads pass, and what that means.
 * @param {(number | null)[]} passes
 */
export function passing(passes) {
  const count = (/** @type {number | null} */ wanted) => passes.filter((each) => each === wanted).length;
  const untested = count(null);
  if (untested === passes.length) return "No head could be tested.";
  const besides = untested ? ` (${untested} could not be tested)` : "";
  const pass = `${count(1)} of ${passes.length} heads pass${besides}`;
  return `${pass}: their excess is beyond what chance brings, which need not be large.`;
}

let made = 0;

/** Everything about one set of patterns, inside one element. */
class Explorer {
  /** @param {HTMLElement} root @param {Contents} contents @param {Source} source */
  constructor(root, contents, source) {
    this.root = root;
    this.contents = contents;
    this.patterns = new Patterns(source, contents);
    this.source = source;
    this.id = ++made;
    this.ended = new AbortController();
    this.sizes = new ResizeObserver((seen) => seen.forEach((one) => this.resized.get(one.target)?.()));
    /** @type {Map<Element, () => void>} */
    this.resized = new Map();
    /** @type {ReturnType<typeof setTimeout> | undefined} the choice that the arrow keys wait with */
    this.soon = undefined;
    this.present = contents.present && new Set(contents.present);
    /** @type {State} */
    this.state = {
      ...contents.start,
      score: 0,
      variable: "mean",
      shade: "square root",
      weighted: false,
      beside: null,
      subtract: false,
      pins: [],
      together: "alone",
    };
    this.turn = 0;
    /** @type {Uint8Array | null} */
    this.thumbnails = null;
    /** @type {Matrix | null} the chosen head on the prompt */
    this.chosen = null;
    this.drawable = false;
    this.palette = new Palette("light");
    /** The theme of the page around it, where that has only one. */
    this.fixed = root.dataset.theme;
    this.readTheme();
    this.pattern = new PatternArea(this);
    this.text = new TextView(this);
    this.card = new Card(this);
    this.grids = [new HeadGrid(this, "thumb")];
    if (contents.scores.length) this.grids.push(new HeadGrid(this, "map"));
    this.scatter = contents.scores.length > 1 ? new Scatter(this) : null;
    this.headReadout = el("p", { class: "ik-head-readout" });
    this.mapLegend = el("div", { class: "ik-map-legend" });
    this.ranking = el("div", { class: "ik-ranking" });
    this.prompts = menu(
      contents.prompts.map((prompt) => prompt.name),
      "Prompt",
      "ik-prompt",
    );
    this.search = el("input", {
      class: "ik-search",
      type: "search",
      "aria-label": "Head, for example " + this.nameOf(contents.present?.[0] ?? 0),
      placeholder: this.nameOf(contents.present?.[0] ?? 0),
      size: 8,
      autocomplete: "off",
      spellcheck: "false",
    });
    this.found = el("span", { class: "ik-refused ik-search-message", role: "status" });
    this.scores = menu(
      contents.scores.map((score) => score.name),
      "Score",
      "ik-score-menu",
    );
    this.variable = menu(["mean", "excess"], "Shown as", "ik-variable");
    this.variable.title = "mean, or excess over the control or chance";
    this.theme = new MutationObserver(() => this.readTheme());
    this.build();
    this.listen();
    this.drawable = true;
  }

  get prompt() {
    return this.contents.prompts[this.state.prompt];
  }

  /** @param {number} index */
  nameOf(index) {
    return `L${Math.floor(index / this.contents.heads)}H${index % this.contents.heads}`;
  }

  /** @param {number} index */
  isPresent(index) {
    return this.present ? this.present.has(index) : true;
  }

  /**
   * @param {EventTarget} target
   * @param {string} kind
   * @param {(event: Event) => void} listener
   * @param {AddEventListenerOptions} [options]
   */
  on(target, kind, listener, options = {}) {
    target.addEventListener(kind, listener, { ...options, signal: this.ended.signal });
  }

  /** @param {Element} element @param {() => void} then */
  watchSize(element, then) {
    this.resized.set(element, then);
    this.sizes.observe(element);
  }

  // ---- what is built once

  build() {
    const keys = el("details", { class: "ik-keys" }, el("summary", {}, "Keyboard and mouse"), keyList());
    const main = el(
      "div",
      { class: "ik-main" },
      this.headsSection(),
      this.pattern.section,
      this.card.section,
      this.text.section,
    );
    this.root.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the keys to the explorer
    const controls = this.controls();
    controls.append(keys);
    this.root.append(this.titleRow(), controls, main);
  }

  titleRow() {
    const { title, notes } = this.contents;
    const list = el("ul", { class: "ik-notes" }, ...notes.map((note) => el("li", {}, note)));
    const long = notes.length > 2 || notes.join("").length > 240;
    return el(
      "div",
      { class: "ik-head" },
      el("div", { class: "ik-title", role: "heading", "aria-level": 2 }, title),
      notes.length ? (long ? el("details", {}, el("summary", {}, "Notes"), list) : list) : "",
    );
  }

  controls() {
    const { contents } = this;
    this.prompts.value = String(this.state.prompt);
    const [before, after] = [
      button("‹", "Previous prompt", "ik-previous"),
      button("›", "Next prompt", "ik-next"),
    ];
    this.on(this.prompts, "change", () => this.choosePrompt(Number(this.prompts.value)));
    this.on(before, "click", () => this.choosePrompt(this.state.prompt - 1));
    this.on(after, "click", () => this.choosePrompt(this.state.prompt + 1));
    this.on(this.search, "focus", () => this.search.select()); // what is typed takes its place
    this.on(this.search, "keydown", (event) => {
      if (/** @type {KeyboardEvent} */ (event).key === "Enter") this.searched();
    });
    this.on(this.scores, "change", () => this.chooseScore());
    this.on(this.variable, "change", () => this.chooseScore());
    return el(
      "div",
      { class: "ik-row ik-controls" },
      el("span", { class: "ik-buttons", hidden: contents.prompts.length < 2 }, before, this.prompts, after),
      el("label", {}, "Head ", this.search),
      this.found,
      el("label", {}, this.text.position, this.text.number),
      this.text.refused,
      contents.scores.length
        ? el("span", {}, el("label", {}, "Score ", this.scores), " ", el("label", {}, "shown as ", this.variable))
        : "",
    );
  }

  headsSection() {
    /** @type {[string, HTMLElement][]} */
    const views = [["Thumbnails", this.grids[0].panel]];
    if (this.grids.length > 1) views.push(["Map", this.grids[1].panel]);
    if (this.scatter) views.push(["Scatter", this.scatter.panel]);
    const parts = views.length > 1 ? this.tabs(views) : [this.grids[0].panel];
    const said = [this.headReadout, this.mapLegend, this.ranking];
    return el("section", { class: "ik-heads-area", "aria-label": "Heads" }, ...parts, ...said);
  }

  /** The row of tabs, and a panel for each. @param {[string, HTMLElement][]} views */
  tabs(views) {
    const row = el("div", { class: "ik-tabs", role: "tablist", "aria-label": "Heads as" });
    const pairs = views.map(([name, content], at) => {
      const id = `ik-${this.id}-${name.toLowerCase()}`;
      const kind = `ik-tab ik-tab-${name.toLowerCase()}`;
      const tab = el(
        "button",
        { type: "button", role: "tab", id: `${id}-tab`, "aria-controls": id, class: kind },
        name,
      );
      const panel = el("div", { role: "tabpanel", id, "aria-labelledby": `${id}-tab` }, content);
      this.on(tab, "click", () => show(at));
      row.append(tab);
      return { tab, panel };
    });
    const show = (/** @type {number} */ chosen) => {
      pairs.forEach(({ tab, panel }, at) => {
        tab.setAttribute("aria-selected", String(at === chosen));
        tab.tabIndex = at === chosen ? 0 : -1;
        panel.hidden = at !== chosen;
      });
      this.mapLegend.hidden = views[chosen][0] === "Scatter";
      if (this.mapLegend.hidden) this.scatter?.draw();
      else this.drawMapLegend();
    };
    this.on(row, "keydown", (event) => {
      const { key } = /** @type {KeyboardEvent} */ (event);
      const now = pairs.findIndex(({ tab }) => tab === event.target);
      const to = now + (key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0);
      if (to === now || !pairs[to]) return;
      event.preventDefault();
      show(to);
      pairs[to].tab.focus();
    });
    show(0);
    return [row, ...pairs.map(({ panel }) => panel)];
  }

  listen() {
    this.on(this.root, "ik:head", (event) => {
      const { detail } = /** @type {CustomEvent} */ (event);
      this.chooseName(String(detail));
    });
    if (!this.contents.live) this.on(window, "hashchange", () => this.followAddress());
    this.on(matchMedia("(prefers-color-scheme: dark)"), "change", () => this.readTheme());
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  }

  /** The theme that the page fixed, else JupyterLab's, else the reader's. */
  readTheme() {
    const lab = document.body.dataset.jpThemeLight;
    const dark = lab ? lab === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = this.fixed === "light" || !dark ? "light" : "dark";
    if (this.root.dataset.theme === theme && this.palette.of === THEMES[theme]) return;
    this.root.dataset.theme = theme;
    this.palette = new Palette(theme);
    if (this.drawable) this.redraw();
  }

  redraw() {
    this.drawHeads();
    this.pattern.redraw();
    this.pattern.drawLegend();
    this.text.colour();
  }

  // ---- what is shown

  async start() {
    if (!this.contents.live) this.state.head = this.headOfAddress() ?? this.state.head;
    if (!this.isPresent(this.state.head)) this.state.head = this.contents.present?.[0] ?? 0;
    this.sayChosen(this.state.head);
    this.text.build(this.prompt);
    this.drawHeads();
    this.grids.forEach((grid) => grid.resize());
    await this.loadThumbnails();
    await this.showHead();
  }

  async loadThumbnails() {
    const { prompt } = this.state;
    const bytes = await this.patterns.thumbnails(prompt).catch((error) => this.fail(error));
    if (!bytes || prompt !== this.state.prompt) return;
    this.thumbnails = bytes;
    this.grids[0].drawThumbnails();
    this.root.dataset.prompt = String(prompt);
    this.root.dataset.ready ??= "thumbnails";
  }

  drawHeads() {
    this.grids.forEach((grid) => grid.draw());
    this.drawMapLegend();
    this.drawRanking();
    if (this.scatter?.panel.offsetParent) this.scatter.draw();
    this.sayHead(this.state.head);
  }

  /** The first heads by the chosen score, each a way to it, and how many pass. */
  drawRanking() {
    const { score, values } = this.scoreValues();
    if (!score) return;
    const here = values.map((value, index) => (this.isPresent(index) ? value : null));
    const list = el("ol", { class: "ik-ranked" });
    for (const index of ranked(here, score.first, RANKED)) {
      const name = this.nameOf(index);
      const go = button(`${name} ${number(here[index])}`, `Choose ${name} ${number(here[index])}`, "ik-pair");
      go.onclick = () => this.choose(index);
      list.append(el("li", {}, go));
    }
    const by = `${score.name}, ${this.state.variable}${ORDERS[score.first]}`;
    this.ranking.replaceChildren(
      el("p", {}, `Strongest heads by ${by}${list.childElementCount ? ":" : ": no head has a value."}`),
      list,
      el("p", { class: "ik-quiet" }, passing(score.passes.filter((_, index) => this.isPresent(index)))),
    );
  }

  drawMapLegend() {
    const { range: reach, score } = this.scoreValues();
    if (!score) return;
    const stops = reach.signed ? this.palette.of.signed : this.palette.of.score;
    const values = [0, 0.25, 0.5, 0.75, 1].map(
      (place) =>
        /** @type {[number, string]} */ ([place, number(reach.low + place * (reach.high - reach.low))]),
    );
    const bar = this.grids[0].box.offsetParent ? "Bar under each picture: " : "";
    const unit = score.unit ? ` (${score.unit})` : "";
    const marks = el("span", { class: "ik-legend-marks" });
    if (score.passes.includes(1)) marks.append(el("span", { class: "ik-mark-passes" }), " passes ");
    if (score.passes.includes(null)) {
      const why = score.untested ? `: ${score.untested}` : "";
      marks.append(el("span", { class: "ik-mark-untested" }), ` untested${why}`);
    }
    this.mapLegend.replaceChildren(
      el("span", {}, `${bar}${score.name}, ${this.state.variable}${unit} `),
      legend(`linear-gradient(to right, ${stops.join(", ")})`, values),
      marks,
    );
  }

  /** The score that colours heads. */
  scoreValues() {
    const score = this.contents.scores[this.state.score] ?? null;
    const values = (score && score[this.state.variable]) ?? [];
    return { score, values, range: rangeOf(values) };
  }

  /** A head in words: its name and the chosen score. @param {number} index */
  describe(index) {
    const name = this.nameOf(index);
    if (!this.isPresent(index)) return `${name}, not there`;
    const score = this.contents.scores[this.state.score];
    if (!score) return name;
    const mean = number(score.mean[index]) + interval(score.low?.[index], score.high?.[index]);
    const over = interval(score.excess_low?.[index], score.excess_high?.[index]);
    const excess = score.excess ? `, excess ${number(score.excess[index])}${over}` : "";
    const passes = score.passes[index];
    const verdict = passes === null ? "untested" : passes ? "passes" : "does not pass";
    return `${name}: ${score.name} ${mean}${excess}, ${verdict}`;
  }

  /** @param {number} index */
  sayHead(index) {
    this.headReadout.textContent = this.describe(index);
  }

  /** Shows the chosen head: its thumbnail enlarged while it is waited for. */
  async showHead() {
    const turn = ++this.turn;
    this.root.dataset.ready = "thumbnails";
    this.card.draw();
    this.text.showVotes();
    this.sayPins();
    const waits = [setTimeout(() => this.showWaiting(turn, ""), 250)];
    if (this.contents.live) waits.push(setTimeout(() => this.unanswered(turn), ANSWER_WITHIN));
    try {
      const [shown, pinned, chosen] = await Promise.all([
        this.shown(),
        this.pinnedPatterns(),
        this.patternOf(this.state.prompt, this.state.head),
      ]);
      waits.forEach(clearTimeout);
      if (turn === this.turn) this.draw(shown, pinned, chosen);
    } catch (error) {
      waits.forEach(clearTimeout);
      if (turn === this.turn)
        await this.showWaiting(turn, error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {Shown[]} shown @param {Pinned[]} pinned @param {Matrix} chosen */
  draw(shown, pinned, chosen) {
    this.chosen = chosen;
    this.say(
      chosen.block > 1
        ? "This head is not stored whole on this prompt. Shown is its thumbnail: the largest weight of each block."
        : "",
    );
    this.pattern.show(shown, pinned);
    const weighted = chosen.weighted ? ", value-weighted" : "";
    this.text.title.textContent = `Text, attention of ${this.nameOf(this.state.head)}${weighted}`;
    this.text.colour();
    this.root.dataset.head = this.nameOf(this.state.head);
    this.root.dataset.prompt = String(this.state.prompt);
    this.root.dataset.ready = "head";
  }

  /**
   * Says so; a late answer is still taken, and the next choice of the head asks again.
   * @param {number} turn
   */
  unanswered(turn) {
    this.patterns.forget(this.state.prompt, this.state.head);
    return this.showWaiting(
      turn,
      "The kernel has not answered: it is busy, or it was restarted and the cell has to run again.",
    );
  }

  /** @param {number} turn @param {string} text */
  async showWaiting(turn, text) {
    const matrix = await this.patterns.thumbnail(this.state.prompt, this.state.head).catch(() => null);
    if (turn !== this.turn || this.root.dataset.ready === "head") return;
    this.say(text || "The whole pattern is being computed; until then, its thumbnail.");
    if (!matrix) return;
    this.chosen = matrix;
    this.pattern.show(
      [{ matrix, prompt: this.prompt, name: `${this.nameOf(this.state.head)}, thumbnail` }],
      [],
    );
    this.text.colour();
    if (!text) return;
    this.root.dataset.head = this.nameOf(this.state.head);
    this.root.dataset.ready = "unanswered";
  }

  /** @param {string} text */
  say(text) {
    this.pattern.status.textContent = text;
    this.pattern.status.hidden = !text;
  }

  /** @param {unknown} error */
  fail(error) {
    this.say(error instanceof Error ? error.message : String(error));
  }

  /**
   * A head's pattern as the toggles have it; its thumbnail if it is not stored whole.
   * @param {number} prompt
   * @param {number} index
   */
  async patternOf(prompt, index) {
    const matrix =
      (await this.patterns.whole(prompt, index)) ?? (await this.patterns.thumbnail(prompt, index));
    return this.state.weighted ? this.patterns.valueWeighted(matrix) : matrix;
  }

  /**
   * Several patterns that can be added and subtracted: whole ones, or the thumbnails of all if one is not
   * stored whole.
   * @param {[number, number][]} places prompt and head of each
   */
  async alike(places) {
    const all = await Promise.all(places.map(([prompt, index]) => this.patternOf(prompt, index)));
    if (all.every((one) => one.n === all[0].n && one.block === 1)) return all;
    return Promise.all(places.map(([prompt, index]) => this.patterns.thumbnail(prompt, index)));
  }

  /**
   * The heads nearest to the chosen one on the prompt shown, by the numbers of the difference view, nearest first.
   * Heads not stored whole are left out.
   * @param {number} count
   * @returns {Promise<Alike[]>}
   */
  async mostAlike(count) {
    const { head, prompt } = this.state;
    const { turn } = this;
    const mine = { matrix: await this.patternOf(prompt, head), name: "" };
    /** @type {Alike[]} */
    const found = [];
    for (let index = 0; index < this.contents.layers * this.contents.heads; index++) {
      if (index === head || !this.isPresent(index)) continue;
      const matrix = await this.patternOf(prompt, index);
      if (turn !== this.turn) return []; // the reader went on
      if (matrix.block > 1 || mine.matrix.block > 1) continue;
      const { without, all } = furthest(difference(mine, { matrix, name: "" }));
      found.push({ index, without: without.apart, all: all.apart });
    }
    return found.sort((a, b) => a.without - b.without).slice(0, count);
  }

  /**
   * The large panels.
   * @returns {Promise<Shown[]>}
   */
  async shown() {
    const { head, prompt, beside, together } = this.state;
    if (this.others.length && together === "side by side") return this.sideBySide();
    if (this.others.length && together !== "alone") return [await this.combined(together)];
    const name = this.nameOf(head);
    if (beside === null) return [{ matrix: await this.patternOf(prompt, head), prompt: this.prompt, name }];
    const other = this.contents.prompts[beside];
    const names = [`${name}, ${this.prompt.name}`, `${name}, ${other.name}`];
    if (this.state.subtract && other.tokens.length === this.prompt.tokens.length) {
      const [first, second] = await this.alike([
        [prompt, head],
        [beside, head],
      ]);
      const matrix = difference({ matrix: first, name: names[0] }, { matrix: second, name: names[1] });
      return [{ matrix, prompt: this.prompt, name: `${names[0]} minus ${other.name}` }];
    }
    const [first, second] = await Promise.all([this.patternOf(prompt, head), this.patternOf(beside, head)]);
    return [
      { matrix: first, prompt: this.prompt, name: names[0] },
      { matrix: second, prompt: other, name: names[1] },
    ];
  }

  /** The pinned heads that are not the shown one. */
  get others() {
    return this.state.pins.filter((pin) => pin !== this.state.head);
  }

  /** The shown head and the pinned ones, equally large. */
  async sideBySide() {
    const { head, prompt } = this.state;
    const all = [head, ...this.others];
    const matrices = await Promise.all(all.map((one) => this.patternOf(prompt, one)));
    return all.map((one, i) => ({ matrix: matrices[i], prompt: this.prompt, name: this.nameOf(one) }));
  }

  /** The average of the shown head and the pinned ones, or the shown one minus the others. @param {string} how */
  async combined(how) {
    const { head, prompt } = this.state;
    const all = [head, ...this.others];
    const matrices = await this.alike(all.map((one) => [prompt, one]));
    const names = all.map((one) => this.nameOf(one));
    if (how === "average") {
      return { matrix: average(matrices), prompt: this.prompt, name: `average of ${names.join(", ")}` };
    }
    const others = names.length > 2 ? `the average of ${names.slice(1).join(", ")}` : names[1];
    const matrix = difference(
      { matrix: matrices[0], name: names[0] },
      { matrix: average(matrices.slice(1)), name: others },
    );
    return { matrix, prompt: this.prompt, name: `${names[0]} minus ${others}` };
  }

  async pinnedPatterns() {
    const { pins, prompt } = this.state;
    return Promise.all(
      pins.map(async (index) => ({
        matrix: await this.patternOf(prompt, index),
        prompt: this.prompt,
        index,
      })),
    );
  }

  sayPins() {
    const { pins, head, beside } = this.state;
    const pinned = pins.includes(head);
    const { pin, subtractLabel } = this.pattern;
    pin.textContent = pinned ? "Unpin" : "Pin";
    pin.setAttribute("aria-label", `${pinned ? "Unpin" : "Pin"} ${this.nameOf(head)}`);
    this.sayTogether();
    subtractLabel.hidden =
      beside === null || this.contents.prompts[beside].tokens.length !== this.prompt.tokens.length;
  }

  /** What can be done with the shown head and the pinned ones, or what has to be done first. */
  sayTogether() {
    const { together, hint } = this.pattern;
    const names = this.others.map((one) => this.nameOf(one));
    together.hidden = !names.length;
    hint.hidden = !together.hidden;
    hint.textContent = this.state.pins.length
      ? `Pinned ${this.nameOf(this.state.head)}: choose another head, then Side by side, Average or Difference.`
      : "Pin this head, then choose another, to compare the two.";
    const from = names.length > 1 ? `the average of ${names.join(", ")}` : names.join("");
    for (const one of together.querySelectorAll("input")) {
      one.checked = one.value === this.state.together;
      if (one.value === "difference" && one.nextElementSibling)
        one.nextElementSibling.textContent = from ? `Difference from ${from}` : "Difference";
    }
  }

  // ---- what the reader does

  /** @param {Partial<State>} change */
  set(change) {
    Object.assign(this.state, change);
    void this.showHead();
  }

  /** @param {number} index */
  choose(index) {
    clearTimeout(this.soon);
    this.sayChosen(index);
    const before = this.state.head;
    if (index === before && this.root.dataset.ready === "head") return;
    this.state.head = index;
    this.grids.forEach((grid) => grid.mark(before));
    if (this.scatter?.panel.offsetParent) this.scatter.mark();
    this.sayHead(index);
    void this.showHead();
  }

  /** The name of the chosen head in the box where one is typed. @param {number} index */
  sayChosen(index) {
    this.search.value = this.nameOf(index);
    this.search.setAttribute("aria-invalid", "false");
    this.found.textContent = "";
  }

  /** As the arrow keys move; a kernel is not asked for heads that are only passed. @param {number} index */
  chooseSoon(index) {
    clearTimeout(this.soon);
    if (!this.contents.live) this.choose(index);
    else this.soon = setTimeout(() => this.choose(index), 200);
  }

  /** @param {string} text @returns {boolean} whether there is such a head */
  chooseName(text) {
    const index = this.indexOf(text);
    if (index === null) return false;
    this.choose(index);
    return true;
  }

  /** @param {string} text */
  indexOf(text) {
    const found = parseHead(text);
    if (!found || found[0] >= this.contents.layers || found[1] >= this.contents.heads) return null;
    const index = found[0] * this.contents.heads + found[1];
    return this.isPresent(index) ? index : null;
  }

  searched() {
    const { search, found, contents } = this;
    if (this.chooseName(search.value)) return;
    const within = `layers go from 0 to ${contents.layers - 1}, heads from 0 to ${contents.heads - 1}`;
    const some = this.present ? ", not all of them are here" : "";
    found.textContent = `${quoted(search.value)} is none of these heads: ${within}${some}.`;
    search.setAttribute("aria-invalid", "true");
  }

  headOfAddress() {
    return this.indexOf(location.hash.slice(1));
  }

  followAddress() {
    const index = this.headOfAddress();
    if (index !== null) this.choose(index);
  }

  chooseScore() {
    this.state.score = Number(this.scores.value);
    this.state.variable = this.variable.value === "1" ? "excess" : "mean";
    this.drawHeads();
  }

  /** @param {number} prompt */
  async choosePrompt(prompt) {
    const count = this.contents.prompts.length;
    this.state.prompt = (prompt + count) % count;
    this.prompts.value = String(this.state.prompt);
    this.chosen = this.thumbnails = null;
    this.grids[0].drawThumbnails();
    const { kept } = this.text;
    delete this.root.dataset.kept;
    this.text.build(this.prompt);
    this.text.keepAgain(kept);
    await Promise.all([this.loadThumbnails(), this.showHead()]);
  }

  /** @param {number} index */
  togglePin(index) {
    const { pins } = this.state;
    const left = pins.includes(index) ? pins.filter((one) => one !== index) : [...pins, index];
    this.set({ pins: left, together: left.length ? this.state.together : "alone" });
  }

  /** Shows a pair of tokens on a prompt. @param {number} prompt @param {number} query @param {number} key */
  async goTo(prompt, query, key) {
    if (prompt !== this.state.prompt) await this.choosePrompt(prompt);
    this.text.keep(query, "query");
    this.pointAt(query, key);
  }

  /** Sets the cursor of the pattern on a cell. @param {number} query @param {number} key */
  pointAt(query, key) {
    const panel = this.pattern.panels[0];
    if (!panel || panel.matrix?.block !== 1) return;
    panel.view.cursor = { query, key };
    panel.view.show(query, key);
    this.pattern.redraw();
    this.pattern.cursorMoved(panel);
  }

  close() {
    this.ended.abort();
    this.sizes.disconnect();
    this.theme.disconnect();
    this.text.close();
    this.source.close();
  }
}

const KEYS = [
  [
    "Heads",
    "arrow keys move the chosen head; Home and End go to the ends of a layer, with Ctrl of the model",
  ],
  [
    "Pattern",
    "arrow keys move the cursor, with Shift by ten; + and − zoom, 0 shows the whole; Enter keeps the query, with Shift the key",
  ],
  [
    "Text",
    "arrow keys move over the tokens, with Shift for queries that attend; Enter keeps, Escape releases",
  ],
  [
    "Mouse",
    "wheel zooms, dragging moves, a double click shows the whole pattern; a click keeps the query, with Shift the key",
  ],
];

function keyList() {
  const list = el("dl");
  for (const [where, what] of KEYS) list.append(el("dt", {}, where), el("dd", {}, what));
  return list;
}

/** @param {HTMLElement} root @param {Contents} contents @param {Source} source */
function open(root, contents, source) {
  if (contents.format !== FORMAT) {
    root.append(
      el("p", {}, `These patterns have format ${contents.format}; this explorer reads format ${FORMAT}.`),
    );
    return null;
  }
  const explorer = new Explorer(root, contents, source);
  void explorer.start();
  return explorer;
}

/** Draws every explorer of the document that is not drawn yet. */
export function mountAll() {
  for (const root of /** @type {NodeListOf<HTMLElement>} */ (
    document.querySelectorAll(".ik-explorer:not([data-mounted])")
  )) {
    const text = root.querySelector("script.ik-contents")?.textContent;
    if (!text) continue;
    root.dataset.mounted = "";
    open(root, JSON.parse(text), new PageSource(root));
  }
}

/** What anywidget calls. */
export default {
  /** @param {{model: Model, el: HTMLElement}} given */
  render({ model, el: holder }) {
    const root = el("div", { class: "ik-explorer", "data-mounted": true });
    holder.append(root);
    const explorer = open(root, model.get("contents"), new KernelSource(model));
    return () => {
      explorer?.close();
      root.remove();
    };
  },
};

if (typeof document !== "undefined") mountAll();
