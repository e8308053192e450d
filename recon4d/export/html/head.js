// orbit4d scene player (WebGL2). Embed: <script src="viewer.js"></script>, then
// Orbit4D.mount(element, { src: "scene.bin" }). The pair is fetched, so it needs a web server: pages opened
// from disk (file:) may not fetch. `orbit4d export SCENE --format html` writes one file that needs none.
