from orbit4d.compose.animate.sampling import clip_times as clip_times
