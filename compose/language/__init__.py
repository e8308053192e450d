"""English as prompts and captions use it: inflection, word classes, spelling."""
