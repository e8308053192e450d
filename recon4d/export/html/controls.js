// The camera turns around a point, +Z up. One pointer turns, two pan and zoom, the wheel zooms.
const KEYS_TURN = 0.08, FAR = 20, CLOSE = 0.2;

function orbitOf(canvas, start, changed) {
  const state = { ...start, target: [0, 0, 0] }, first = structuredClone(state), pointers = new Map();

  function axes() {
    const { azimuth: a, elevation: e } = state;
    const back = [Math.sin(a) * Math.cos(e), -Math.cos(a) * Math.cos(e), Math.sin(e)];
    const right = [Math.cos(a), Math.sin(a), 0];
    const up = [-Math.sin(a) * Math.sin(e), Math.cos(a) * Math.sin(e), Math.cos(e)];
    return { back, right, up };
  }
  function camera(width, height) {
    const { back, right, up } = axes(), f = height / 2 / Math.tan(state.fov / 2);
    const eye = back.map((b, i) => state.target[i] + b * state.distance), rows = [right, up.map((v) => -v), back.map((v) => -v)];
    const view = new Float32Array(16);
    rows.forEach((row, r) => {
      row.forEach((v, c) => { view[4 * c + r] = v; });
      view[12 + r] = -(row[0] * eye[0] + row[1] * eye[1] + row[2] * eye[2]);
    });
    view[15] = 1;
    return { view, fx: f, fy: f, cx: width / 2, cy: height / 2, width, height, eye };
  }
  function turn(dx, dy) {
    state.azimuth -= dx;
    state.elevation = Math.min(Math.max(state.elevation + dy, -1.55), 1.55);
    changed();
  }
  function pan(dx, dy) {
    const { right, up } = axes(), scale = 2 * state.distance * Math.tan(state.fov / 2) / canvas.clientHeight;
    state.target = state.target.map((t, i) => t - right[i] * dx * scale + up[i] * dy * scale);
    changed();
  }
  function zoom(factor) {
    state.distance = Math.min(Math.max(state.distance * factor, CLOSE), FAR);
    changed();
  }
  function reset() { Object.assign(state, structuredClone(first)); changed(); }

  canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const end of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener('pointermove', (event) => {
    const was = pointers.get(event.pointerId);
    if (!was) return;
    const dx = event.clientX - was[0], dy = event.clientY - was[1], other = [...pointers].find(([id]) => id !== event.pointerId);
    if (other) {
      const [ox, oy] = other[1];
      const before = Math.hypot(was[0] - ox, was[1] - oy), after = Math.hypot(event.clientX - ox, event.clientY - oy);
      if (before > 0 && after > 0) zoom(before / after);
      pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 2) pan(dx, dy);
    else turn(dx * 0.008, dy * 0.008);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener('contextmenu', (event) => event.preventDefault());
  canvas.addEventListener('wheel', (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.001)); }, { passive: false });
  function key(name) {
    const turns = { ArrowLeft: [KEYS_TURN, 0], ArrowRight: [-KEYS_TURN, 0], ArrowUp: [0, KEYS_TURN], ArrowDown: [0, -KEYS_TURN] };
    if (turns[name]) turn(...turns[name]);
    else if (name === '+' || name === '=') zoom(0.9);
    else if (name === '-') zoom(1 / 0.9);
    else if (name === '0') reset();
    else return false;
    return true;
  }
  return { camera, key, reset, state };
}
