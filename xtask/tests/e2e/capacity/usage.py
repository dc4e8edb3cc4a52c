"""Says five times a second what the container holds that it runs in, in bytes: a line of JSON each."""

import json
import os
import time

# Where the control group of a container is in it: the second version has one folder, the first one for each kind.
NEW, OLD = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"


def table(path):
    with open(path) as file:
        return {name: int(value) for name, value in map(str.split, file)}


def number(path):
    with open(path) as file:
        return int(file.read())


def memory():
    """What cannot be dropped, and that with the files that were read lately: what the kubelet calls working set."""
    if os.path.exists(f"{NEW}/memory.stat"):
        stat = table(f"{NEW}/memory.stat")
        return stat["anon"], number(f"{NEW}/memory.current") - stat["inactive_file"]
    stat = table(f"{OLD}/memory.stat")
    return stat["total_rss"], number(f"{OLD}/memory.usage_in_bytes") - stat["total_inactive_file"]


def scratch():
    total = 0
    for folder, _, files in os.walk("/tmp"):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


while True:
    anonymous, working = memory()
    print(json.dumps({"anonymous": anonymous, "working": working, "scratch": scratch()}), flush=True)
    time.sleep(0.2)
