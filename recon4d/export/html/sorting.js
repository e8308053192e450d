// Order of the Gaussians from back to front. The function stands alone: a worker runs its text.
function makeSorter(scene) {
  const { count, kind, times, units, means, motion, nodes, weights } = scene;
  const depths = new Float32Array(count), keys = new Uint16Array(count), places = new Uint32Array(65537);

  function depthsAt(view, time) {
    const at = Math.min(Math.max(time, 0), 1) * (times - 1);
    const before = Math.min(Math.floor(at), Math.max(times - 2, 0)), mix = times > 1 ? at - before : 0;
    const a = before * units * 16, b = times > 1 ? a + units * 16 : a;
    const [vx, vy, vz, vw] = view;
    const blend = new Float64Array(12);
    for (let i = 0; i < count; i++) {
      let x = means[3 * i], y = means[3 * i + 1], z = means[3 * i + 2];
      if (kind === 'nodes' || kind === 'bones') {
        blend.fill(0);
        for (let j = 0; j < 4; j++) {
          const w = weights[4 * i + j], node = 16 * nodes[4 * i + j];
          if (w === 0) continue;
          for (let c = 0; c < 12; c++) {
            const low = motion[a + node + c];
            blend[c] += w * (low + mix * (motion[b + node + c] - low));
          }
        }
        const dx = blend[0] * x + blend[1] * y + blend[2] * z + blend[9];
        const dy = blend[3] * x + blend[4] * y + blend[5] * z + blend[10];
        const dz = blend[6] * x + blend[7] * y + blend[8] * z + blend[11];
        x += dx; y += dy; z += dz;
      } else if (kind === 'each') {
        const k = 16 * i;
        x = motion[a + k] + mix * (motion[b + k] - motion[a + k]);
        y = motion[a + k + 1] + mix * (motion[b + k + 1] - motion[a + k + 1]);
        z = motion[a + k + 2] + mix * (motion[b + k + 2] - motion[a + k + 2]);
      }
      depths[i] = vx * x + vy * y + vz * z + vw;
    }
  }

  // view: third row of the world-to-camera matrix, so that depth = view . (x, y, z, 1).
  return function order(view, time) {
    depthsAt(view, time);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      if (depths[i] < low) low = depths[i];
      if (depths[i] > high) high = depths[i];
    }
    const scale = high > low ? 65535 / (high - low) : 0;
    places.fill(0);
    for (let i = 0; i < count; i++) {
      keys[i] = 65535 - Math.round((depths[i] - low) * scale);
      places[keys[i] + 1]++;
    }
    for (let k = 1; k < 65537; k++) places[k] += places[k - 1];
    const out = new Uint32Array(count);
    for (let i = 0; i < count; i++) out[places[keys[i]]++] = i;
    return out;
  };
}

// Sorts in a worker; one request at a time, the latest waits. `now` sorts at once, here.
function sortingOf(scene, done) {
  const held = {};
  for (const key of ['count', 'kind', 'times', 'units', 'means', 'motion', 'nodes', 'weights']) held[key] = scene[key];
  const now = makeSorter(held);
  let worker = null, busy = false, waiting = null;
  try {
    const source = `${makeSorter}\nlet order;\nonmessage = ({ data }) => {
      if (data.scene) { order = makeSorter(data.scene); return; }
      const found = order(data.view, data.time);
      postMessage(found, [found.buffer]);
    };`;
    worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
    worker.onmessage = ({ data }) => {
      busy = false;
      done(data);
      if (waiting) { const next = waiting; waiting = null; ask(next.view, next.time); }
    };
    worker.onerror = () => { worker = null; };
    worker.postMessage({ scene: held });
  } catch (error) { worker = null; }
  function ask(view, time) {
    if (!worker) { done(now(view, time)); return; }
    if (busy) { waiting = { view, time }; return; }
    busy = true;
    worker.postMessage({ view, time });
  }
  return { ask, now, stop: () => worker && worker.terminate(), inWorker: () => worker !== null };
}
