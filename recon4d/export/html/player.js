// The page's parts, and the clock. `mount` returns a player: { ready, time, play, capture, ... }.
function element(name, parent, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  parent.append(made);
  return made;
}

async function fetched(options) {
  if (options.base64) return Uint8Array.from(atob(options.base64.trim()), (c) => c.charCodeAt(0));
  if (location.protocol === 'file:') {
    throw new Error('pages opened from disk may not fetch: serve this folder (python -m http.server), or export with --format html');
  }
  const answer = await fetch(options.src);
  if (!answer.ok) throw new Error(`${options.src}: ${answer.status} ${answer.statusText}`);
  return new Uint8Array(await answer.arrayBuffer());
}

function partsOf(host) {
  if (!document.getElementById('o4d-style')) element('style', document.head, { id: 'o4d-style', textContent: STYLE });
  const root = element('div', host, { className: 'o4d' });
  const canvas = element('canvas', root, { tabIndex: 0 });
  canvas.setAttribute('aria-label', 'moving 3D scene: drag to turn, wheel to zoom, space plays, arrow keys turn');
  const bar = element('div', root, { className: 'bar' });
  const play = element('button', bar, { textContent: 'Play', type: 'button' });
  const slider = element('input', bar, { type: 'range', min: 0, max: 1, step: 0.001, value: 0 });
  slider.setAttribute('aria-label', 'time');
  const clock = element('output', bar, { textContent: '0.00' });
  const speed = element('select', bar);
  speed.setAttribute('aria-label', 'speed');
  for (const rate of [0.25, 0.5, 1, 2]) element('option', speed, { value: rate, textContent: `${rate}×`, selected: rate === 1 });
  const background = element('input', bar, { type: 'color', value: '#ffffff' });
  background.setAttribute('aria-label', 'background');
  const full = element('button', bar, { textContent: 'Full screen', type: 'button' });
  const said = element('div', root, { className: 'said', textContent: 'loading' });
  said.setAttribute('role', 'status');
  return { root, canvas, bar, play, slider, clock, speed, background, full, said };
}

function mount(host, options) {
  const parts = partsOf(host), { canvas, slider } = parts;
  const player = { time: 0, playing: false, parts, ready: null };
  let scene, gl, drawing, sorting, orbit, asked = false, last = 0;

  function colour() {
    const c = parts.background.value;
    return [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16) / 255);
  }
  function thirdRow(camera) { const v = camera.view; return [v[2], v[6], v[10], v[14]]; }
  function refresh() {
    if (asked || !drawing) return;
    asked = true;
    requestAnimationFrame(frame);
  }
  function frame(now) {
    asked = false;
    if (!drawing || gl.isContextLost()) return;
    if (player.playing && scene.times > 1) {
      const passed = Math.min((now - last) / 1000, 0.1) * Number(parts.speed.value) / scene.seconds;
      setTime((player.time + Math.max(passed, 0)) % 1);
    }
    last = now;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const camera = orbit.camera(width, height);
    sorting.ask(thirdRow(camera), player.time);
    drawing.draw(camera, player.time);
    drawing.show(camera, [...colour(), 1]);
    player.frames = (player.frames || 0) + 1;
    if (player.playing) refresh();
  }
  function setTime(time) {
    player.time = time;
    slider.value = time;
    parts.clock.textContent = (time * (scene ? scene.seconds : 1)).toFixed(2);
    refresh();
  }
  function setPlaying(on) {
    player.playing = on;
    parts.play.textContent = on ? 'Pause' : 'Play';
    last = performance.now();
    refresh();
  }
  function begin() {
    drawing = drawingOf(gl, scene);
    drawing.ordered(sorting.now(thirdRow(orbit.camera(100, 100)), player.time));
    refresh();
  }
  // The frame of a camera (see `drawingOf`) at a time: premultiplied RGBA, float32, top row first.
  player.capture = (camera, time) => {
    drawing.ordered(sorting.now(thirdRow(camera), time));
    drawing.draw(camera, time);
    return drawing.read(camera);
  };
  player.play = () => setPlaying(true);
  player.pause = () => setPlaying(false);
  player.seek = setTime;
  player.info = () => ({ count: scene.count, kind: scene.kind, times: scene.times, worker: sorting.inWorker() });

  async function load() {
    gl = canvas.getContext('webgl2', { alpha: true, premultipliedAlpha: true, antialias: false });
    if (!gl) throw new Error('this browser shows no WebGL2: update it, or turn on hardware acceleration');
    scene = await unpack(await fetched(options));
    orbit = orbitOf(canvas, scene.view, refresh);
    player.orbit = orbit;
    sorting = sortingOf(scene, (order) => { if (drawing && !gl.isContextLost()) { drawing.ordered(order); refresh2(order); } });
    begin();
    parts.said.textContent = '';
    const still = scene.times < 2;
    for (const part of [parts.play, slider, parts.clock, parts.speed]) part.hidden = still;
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    if (!still && options.autoplay !== false && !calm) setPlaying(true);
    setTime(0);
  }
  // A new order is drawn once, even while nothing plays; the draw that asked for it had the old one.
  let shown = null;
  function refresh2() {
    const key = `${player.time} ${Object.values(orbit.state)} ${canvas.width}x${canvas.height}`;
    if (key !== shown) { shown = key; refresh(); }
  }

  parts.play.addEventListener('click', () => setPlaying(!player.playing));
  slider.addEventListener('input', () => { setPlaying(false); setTime(Number(slider.value)); });
  parts.background.addEventListener('input', refresh);
  parts.full.addEventListener('click', () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else parts.root.requestFullscreen().catch(() => {});
  });
  canvas.addEventListener('keydown', (event) => {
    if (event.key === ' ') setPlaying(!player.playing);
    else if (event.key === 'f') parts.full.click();
    else if (event.key === ',' || event.key === '.') setTime(Math.min(Math.max(player.time + (event.key === '.' ? 0.02 : -0.02), 0), 1));
    else if (!orbit || !orbit.key(event.key)) return;
    event.preventDefault();
  });
  canvas.addEventListener('webglcontextlost', (event) => { event.preventDefault(); drawing = null; });
  canvas.addEventListener('webglcontextrestored', begin);
  new ResizeObserver(refresh).observe(canvas);
  player.ready = load().catch((error) => {
    parts.said.textContent = error.message;
    parts.bar.hidden = true;
    return Promise.reject(error);
  });
  player.ready.catch(() => {});
  return player;
}
