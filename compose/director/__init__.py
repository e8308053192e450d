"""Who turns a sentence into a spec: a grammar, a language model, or a recorded run."""
