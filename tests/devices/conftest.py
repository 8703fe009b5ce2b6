"""Eight CPU devices: jax counts them once, so this folder is tested by itself."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
