// Gaussians as quads, drawn back to front: skinned, projected and blended as `recon4d/raster` does it.
const WIDTH = 2048;

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
uniform sampler2D splats, motion;
uniform mat4 view;
uniform vec4 lens;       // fx, fy, cx, cy in pixels
uniform vec2 size;       // of the frame, pixels
uniform vec3 eye;
uniform float eps2d, mixing;
uniform int kind, degree, texels, before, after, units;
in uint which;
out vec3 tint;
out vec2 offset;
out vec4 shape;          // A, B, C of the inverse covariance, opacity

vec4 splat(int i, int j) { int k = i * texels + j; return texelFetch(splats, ivec2(k % ${WIDTH}, k / ${WIDTH}), 0); }
vec4 moment(int t, int unit, int j) {
  int k = (t * units + unit) * 4 + j;
  return texelFetch(motion, ivec2(k % ${WIDTH}, k / ${WIDTH}), 0);
}
vec4 moved(int unit, int j) { return mix(moment(before, unit, j), moment(after, unit, j), mixing); }

vec4 turned(vec4 p, vec4 q) {  // w in x
  return vec4(p.x * q.x - p.y * q.y - p.z * q.z - p.w * q.w, p.x * q.y + p.y * q.x + p.z * q.w - p.w * q.z,
              p.x * q.z - p.y * q.w + p.z * q.x + p.w * q.y, p.x * q.w + p.y * q.z - p.z * q.y + p.w * q.x);
}
mat3 matrixOf(vec4 q) {
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(1. - 2. * (y * y + z * z), 2. * (x * y + w * z), 2. * (x * z - w * y),
              2. * (x * y - w * z), 1. - 2. * (x * x + z * z), 2. * (y * z + w * x),
              2. * (x * z + w * y), 2. * (y * z - w * x), 1. - 2. * (x * x + y * y));
}
mat3 polar(mat3 m) {  // the rotation in it, by Newton's iteration
  float det = abs(determinant(m));
  if (!(det > 0.)) return mat3(1.);
  m *= pow(det, -1. / 3.);
  for (int k = 0; k < 8; k++) m = .5 * (m + inverse(transpose(m)));
  return m;
}
vec3 coefficient(int i, int k) { return splat(i, 5 + k).xyz; }
vec3 harmonics(int i, vec3 d) {
  float x = d.x, y = d.y, z = d.z;
  vec3 c = -.48860251 * y * coefficient(i, 0) + .48860251 * z * coefficient(i, 1) - .48860251 * x * coefficient(i, 2);
  if (degree > 1) {
    c += 1.09254843 * x * y * coefficient(i, 3) - 1.09254843 * y * z * coefficient(i, 4)
      + (.94617470 * z * z - .31539157) * coefficient(i, 5) - 1.09254843 * x * z * coefficient(i, 6)
      + .54627422 * (x * x - y * y) * coefficient(i, 7);
  }
  if (degree > 2) {
    float lobe = .45704580 - 2.28522900 * z * z;
    c += -.59004359 * y * (3. * x * x - y * y) * coefficient(i, 8) + 2.89061144 * x * y * z * coefficient(i, 9)
      + lobe * y * coefficient(i, 10) + z * (1.86588166 * z * z - 1.11952900) * coefficient(i, 11)
      + lobe * x * coefficient(i, 12) + 1.44530572 * z * (x * x - y * y) * coefficient(i, 13)
      - .59004359 * x * (x * x - 3. * y * y) * coefficient(i, 14);
  }
  return c;
}

void main() {
  int i = int(which);
  gl_Position = vec4(0., 0., 2., 1.);
  vec4 place = splat(i, 0), quat = splat(i, 1), logs = splat(i, 2);
  vec3 mean = place.xyz, color = vec3(logs.w, splat(i, 3).xy);
  float opacity = place.w;
  mat3 carry = mat3(1.), along = mat3(1.);  // of the covariance, and of the directions that it is seen from
  if (kind == 1 || kind == 3) {
    vec2 pairs = splat(i, 3).zw;
    vec4 share = splat(i, 4);
    int n0 = int(pairs.x) % 4096, n1 = int(pairs.x) / 4096, n2 = int(pairs.y) % 4096, n3 = int(pairs.y) / 4096;
    vec4 a = share.x * moved(n0, 0) + share.y * moved(n1, 0) + share.z * moved(n2, 0) + share.w * moved(n3, 0);
    vec4 b = share.x * moved(n0, 1) + share.y * moved(n1, 1) + share.z * moved(n2, 1) + share.w * moved(n3, 1);
    vec4 c = share.x * moved(n0, 2) + share.y * moved(n1, 2) + share.z * moved(n2, 2) + share.w * moved(n3, 2);
    vec4 d = share.x * moved(n0, 3) + share.y * moved(n1, 3) + share.z * moved(n2, 3) + share.w * moved(n3, 3);
    vec3 m = mean;
    mean = m + vec3(dot(a.xyz, m), dot(vec3(a.w, b.xy), m), dot(vec3(b.zw, c.x), m)) + c.yzw;
    if (kind == 1) quat = turned(vec4(1. + d.x, d.yzw), quat);
    else {
      carry += mat3(a.x, a.w, b.z, a.y, b.x, b.w, a.z, b.y, c.x);
      if (degree > 0) along = transpose(polar(carry));
    }
  } else if (kind == 2) {
    vec4 first = moved(i, 0);
    mean = first.xyz;
    opacity = first.w;
    vec4 low = moment(before, i, 1), high = moment(after, i, 1);
    quat = mix(low, dot(low, high) < 0. ? -high : high, mixing);
    logs = moved(i, 2);
    color = moved(i, 3).xyz;
  }
  vec3 local = (view * vec4(mean, 1.)).xyz;
  if (local.z < .01 || opacity < 1. / 255.) return;
  if (degree > 0) color += harmonics(i, along * normalize(mean - eye));
  tint = max(color, 0.);
  vec2 pad = .15 * size / lens.xy;
  vec2 slope = clamp(local.xy / local.z, -lens.zw / lens.xy - pad, (size - lens.zw) / lens.xy + pad);
  mat3 turn = mat3(view) * carry * matrixOf(normalize(quat));
  mat3 spread = mat3(turn[0] * exp(logs.x), turn[1] * exp(logs.y), turn[2] * exp(logs.z));
  vec3 rowX = vec3(1., 0., -slope.x) * lens.x / local.z, rowY = vec3(0., 1., -slope.y) * lens.y / local.z;
  vec3 halfX = rowX * spread, halfY = rowY * spread;
  float a = dot(halfX, halfX) + eps2d, b = dot(halfX, halfY), c = dot(halfY, halfY) + eps2d;
  float det = a * c - b * b;
  if (!(det > 0.)) return;
  shape = vec4(c / det, -b / det, a / det, opacity);
  vec2 reach = sqrt(2. * log(255. * opacity)) * sqrt(vec2(a, c)) + 1.;
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2. - 1.;
  offset = corner * reach;
  vec2 pixel = local.xy / local.z * lens.xy + lens.zw + offset;
  gl_Position = vec4(pixel / size * vec2(2., -2.) + vec2(-1., 1.), 0., 1.);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 tint;
in vec2 offset;
in vec4 shape;
out vec4 drawn;
void main() {
  float p = .5 * (shape.x * offset.x * offset.x + shape.z * offset.y * offset.y) + shape.y * offset.x * offset.y;
  float alpha = min(.999, shape.w * exp(-p));
  if (p < 0. || alpha < 1. / 255.) discard;
  drawn = vec4(tint * alpha, alpha);
}`;

const COPY_VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4. - 1., 0., 1.); }`;
const COPY_FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D frame;
uniform vec4 behind;
out vec4 drawn;
void main() {
  vec4 front = texelFetch(frame, ivec2(gl_FragCoord.xy), 0);
  drawn = vec4(clamp(front.rgb, 0., 1.), front.a) + behind * (1. - front.a);
}`;

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getShaderInfoLog(shader));
    }
    gl.attachShader(made, shader);
  }
  gl.bindAttribLocation(made, 0, 'which');
  gl.linkProgram(made);
  return made;
}

function floats(gl, values, unit) {
  const height = Math.max(1, Math.ceil(values.length / 4 / WIDTH));
  if (height > gl.getParameter(gl.MAX_TEXTURE_SIZE)) throw new Error('this scene is too large for this GPU');
  const whole = new Float32Array(WIDTH * height * 4);
  whole.set(values);
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, height, 0, gl.RGBA, gl.FLOAT, whole);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
}

// Texels of a Gaussian: centre and opacity; rotation; log scales and red; green, blue, two pairs of nodes;
// weights; then one texel a harmonic.
function splatTexels(scene) {
  const per = 5 + ((scene.degree + 1) ** 2 - 1), out = new Float32Array(scene.count * per * 4);
  const k = per - 5;
  for (let i = 0; i < scene.count; i++) {
    const at = i * per * 4, n = 4 * i;
    out.set(scene.means.subarray(3 * i, 3 * i + 3), at);
    out[at + 3] = scene.opacities[i];
    out.set(scene.quats.subarray(n, n + 4), at + 4);
    out.set(scene.logs.subarray(3 * i, 3 * i + 3), at + 8);
    out.set(scene.colors.subarray(3 * i, 3 * i + 3), at + 11);
    if (scene.kind === 'nodes' || scene.kind === 'bones') {
      out[at + 14] = scene.nodes[n] + 4096 * scene.nodes[n + 1];
      out[at + 15] = scene.nodes[n + 2] + 4096 * scene.nodes[n + 3];
      out.set(scene.weights.subarray(n, n + 4), at + 16);
    }
    for (let c = 0; c < k; c++) out.set(scene.harmonics.subarray(3 * (i * k + c), 3 * (i * k + c) + 3), at + 20 + 4 * c);
  }
  return { per, out };
}

// camera: { view (column-major world to camera, OpenCV axes), fx, fy, cx, cy, width, height, eye }
function drawingOf(gl, scene) {
  const float = gl.getExtension('EXT_color_buffer_float');
  const splats = program(gl, VERTEX, FRAGMENT), copy = program(gl, COPY_VERTEX, COPY_FRAGMENT);
  const { per, out } = splatTexels(scene);
  floats(gl, out, 0);
  floats(gl, scene.kind === 'still' ? new Float32Array(16) : scene.motion, 1);
  const at = {};
  for (const name of ['splats', 'motion', 'view', 'lens', 'size', 'eye', 'eps2d', 'mixing', 'kind', 'degree', 'texels',
    'before', 'after', 'units']) at[name] = gl.getUniformLocation(splats, name);
  const frameAt = gl.getUniformLocation(copy, 'frame'), behindAt = gl.getUniformLocation(copy, 'behind');
  const array = gl.createVertexArray(), buffer = gl.createBuffer(), none = gl.createVertexArray();
  gl.bindVertexArray(array);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, 4 * scene.count, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(0, 1);
  const target = gl.createFramebuffer(), frame = gl.createTexture();
  let held = [0, 0];

  function sized(width, height) {
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, frame);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    if (held[0] === width && held[1] === height) return;
    held = [width, height];
    // Half floats keep what eight bits lose when dozens of layers are blended.
    if (float) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, frame, 0);
  }

  function ordered(order) {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
  }

  function draw(camera, time) {
    sized(camera.width, camera.height);
    gl.viewport(0, 0, camera.width, camera.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(splats);
    const place = Math.min(Math.max(time, 0), 1) * (scene.times - 1);
    const before = Math.min(Math.floor(place), Math.max(scene.times - 2, 0));
    const numbers = {
      splats: 0, motion: 1, kind: { still: 0, nodes: 1, each: 2, bones: 3 }[scene.kind], degree: scene.degree, texels: per,
      before, after: Math.min(before + 1, scene.times - 1), units: scene.units,
    };
    for (const [name, value] of Object.entries(numbers)) gl.uniform1i(at[name], value);
    gl.uniform1f(at.eps2d, scene.eps2d);
    gl.uniform1f(at.mixing, place - before);
    gl.uniformMatrix4fv(at.view, false, camera.view);
    gl.uniform4f(at.lens, camera.fx, camera.fy, camera.cx, camera.cy);
    gl.uniform2f(at.size, camera.width, camera.height);
    gl.uniform3fv(at.eye, camera.eye);
    gl.bindVertexArray(array);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, scene.count);
  }

  // behind: premultiplied RGBA; alpha 0 leaves the page to be seen.
  function show(camera, behind) {
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, camera.width, camera.height);
    gl.disable(gl.BLEND);
    gl.useProgram(copy);
    gl.uniform1i(frameAt, 2);
    gl.uniform4fv(behindAt, behind);
    gl.bindVertexArray(none);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Premultiplied RGBA as float32, top row first.
  function read(camera) {
    const { width, height } = camera, raw = new Float32Array(width * height * 4);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target);
    if (float) gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, raw);
    else {
      const bytes = new Uint8Array(raw.length);
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
      raw.set(scaled(bytes, 1 / 255));
    }
    const out = new Float32Array(raw.length), row = 4 * width;
    for (let y = 0; y < height; y++) out.set(raw.subarray((height - 1 - y) * row, (height - y) * row), y * row);
    return out;
  }
  return { draw, show, read, ordered };
}
