import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each worker has a core: threads of small solves would wait for each other
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")  # tests compile more than they run

import jax

collect_ignore = ["parallel_checks.py", "device_checks.py"]  # run in processes of their own

jax.config.update("jax_enable_x64", True)
# compiled once for all workers, and for the next run
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
