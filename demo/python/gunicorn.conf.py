"""How the demo is served; gunicorn reads this file from its working directory."""

bind = "127.0.0.1:8080"
workers = 1
graceful_timeout = 2
worker_tmp_dir = "/dev/shm"


def post_worker_init(worker):
    # In the worker: the master must not import the app, or a reload would keep the old code.
    import adder

    worker.log.info("adder %s: pid %d", adder.VERSION, worker.pid)
