// Videos that belong together run in step; whoever asked the system for less motion starts them by hand.
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const video of document.querySelectorAll("video")) {
  if (still) {
    video.autoplay = false;
    video.pause();
    video.controls = true;
  }
}
const pair = document.querySelectorAll("video.paired");
if (pair.length === 2 && !still) {
  const [lead, follow] = pair;
  lead.addEventListener("timeupdate", () => {
    if (Math.abs(lead.currentTime - follow.currentTime) > 0.12) follow.currentTime = lead.currentTime;
  });
}
