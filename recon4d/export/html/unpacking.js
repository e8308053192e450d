// The file of `packing.py`: gzip, header, arrays in byte planes; numbers become float32.
const TYPES = { u1: Uint8Array, u2: Uint16Array, i2: Int16Array, f2: Uint16Array, f4: Float32Array };

async function inflated(bytes) {
  if (typeof DecompressionStream === 'undefined') throw new Error('this browser cannot decompress; update it');
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function halfToFloat(values) {
  const out = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const h = values[i], sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, part = h & 1023;
    if (exponent === 0) out[i] = sign * part * 2 ** -24;
    else out[i] = exponent === 31 ? NaN : sign * (1 + part / 1024) * 2 ** (exponent - 15);
  }
  return out;
}

function parsed(bytes) {
  if (String.fromCharCode(...bytes.subarray(0, 4)) !== 'O4DV') throw new Error('not a scene of orbit4d');
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
  const arrays = {};
  let at = 8 + size;
  for (const { name, type, length } of header.arrays) {
    const out = new TYPES[type](length), raw = new Uint8Array(out.buffer), width = out.BYTES_PER_ELEMENT;
    for (let plane = 0; plane < width; plane++) {
      for (let i = 0; i < length; i++) raw[i * width + plane] = bytes[at + plane * length + i];
    }
    at += width * length;
    arrays[name] = type === 'f2' ? halfToFloat(out) : out;
  }
  return { header, arrays };
}

function between(values, range, levels) {
  if (!range) return values;
  const out = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const c = i % 3;
    out[i] = range.low[c] + (range.high[c] - range.low[c]) * values[i] / levels;
  }
  return out;
}

function scaled(values, factor, shift = 0) {
  return Float32Array.from(values, (v) => v * factor + shift);
}

// { count, degree, times, units, kind, means, quats, logs, colors, opacities, harmonics, motion, nodes, weights }
async function unpack(bytes) {
  const whole = bytes[0] === 0x1f && bytes[1] === 0x8b ? await inflated(bytes) : bytes;
  const { header, arrays } = parsed(whole);
  if (header.version !== 1) throw new Error(`a scene of version ${header.version}; this player knows 1`);
  const q = header.quantised;
  const scene = {
    ...header, kind: header.motion.kind, times: header.motion.times, units: header.motion.units,
    means: between(arrays.means, header.means, 65535), logs: between(arrays.logs, header.logs, 255),
    colors: between(arrays.colors, header.colors, 255),
    quats: q ? scaled(arrays.quats, 1 / 32767) : arrays.quats,
    opacities: q ? scaled(arrays.opacities, 1 / 255) : arrays.opacities,
    harmonics: q ? scaled(arrays.harmonics, 1 / 127.5, -1) : arrays.harmonics,
    motion: arrays.motion, nodes: arrays.nodes || new Uint16Array(0), weights: new Float32Array(0),
  };
  if (arrays.weights) {
    scene.weights = Float32Array.from(arrays.weights);
    for (let i = 0; i < scene.weights.length; i += 4) {
      const sum = scene.weights[i] + scene.weights[i + 1] + scene.weights[i + 2] + scene.weights[i + 3];
      for (let j = 0; j < 4; j++) scene.weights[i + j] /= sum;
    }
  }
  return scene;
}
