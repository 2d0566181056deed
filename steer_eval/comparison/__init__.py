"""The comparison of methods: many ways to steer one model, each beside its random control, on the same prompts."""
