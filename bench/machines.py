"""What the benchmarks share: the guest's files, and how each machine is started."""
import argparse, json, os, re, selectors, shutil, statistics, subprocess, sys, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parser(description, **defaults):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=os.path.join(ROOT, "build/release"), help="build folder (default build/release)")
    p.add_argument("--guest", help="folder with vmlinuz and initrd.img (default: what tools/make-guest makes)")
    p.add_argument("--memory", default=512, type=int, help="guest memory in MiB (default 512)")
    p.add_argument("--machines", default=defaults.get("machines", "vmp,q35"), help="which to run, of vmp, q35, microvm (default %(default)s)")
    p.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return p


def tsc_khz():
    """The host's TSC frequency, measured: QEMU's microvm has no timer a kernel could measure it with."""
    with open("/proc/cpuinfo") as f:
        text = f.read()
    match = re.search(r"bogomips\s*:\s*([0-9.]+)", text)
    return int(float(match.group(1)) * 500)


class Guest:
    """Debian's kernel and an initramfs whose /init is bench/guest's program."""

    def __init__(self, args, work):
        folder = args.guest
        if folder is None:
            folder = subprocess.run([os.path.join(ROOT, "tools/make-guest")], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        self.kernel = os.path.join(folder, "vmlinuz")
        self.stock_initrd = os.path.join(folder, "initrd.img")
        self.initrd = os.path.join(work, "initrd.img")
        program = os.path.join(args.build, "bench/guest_benchmark")
        if not os.path.exists(program):
            sys.exit(f"{program} is missing: cmake --preset release && cmake --build --preset release --target guest_benchmark vmp")
        tree = os.path.join(work, "tree")
        os.mkdir(tree)
        shutil.copy(program, os.path.join(tree, "init"))
        archive = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], input=b"init\n", cwd=tree, check=True, stdout=subprocess.PIPE).stdout
        with open(self.stock_initrd, "rb") as f:
            stock = f.read()
        with open(self.initrd, "wb") as f:  # a later archive's files replace an earlier one's
            f.write(stock + b"\0" * (-len(stock) % 512) + archive)


def command(machine, args, guest, append="", initrd=None, cpu="max"):
    line = ("console=ttyS0 " + append).strip()
    initrd = initrd or guest.initrd
    if machine == "vmp":
        return [os.path.join(args.build, "vmp"), "run", "--kernel", guest.kernel, "--initrd", initrd, "--cmdline", line,
                "--memory", f"{args.memory}M", "--cpus", "1", "--engine", "soft"]
    common = ["-accel", "tcg", "-m", str(args.memory), "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
              "-no-reboot", "-chardev", "stdio,id=c", "-serial", "chardev:c", "-kernel", guest.kernel, "-initrd", initrd]
    if machine == "q35":
        return ["qemu-system-x86_64", "-M", "q35", "-cpu", cpu] + common + ["-append", line]
    if machine == "microvm":
        return ["qemu-system-x86_64", "-M", "microvm", "-cpu", cpu] + common + ["-append", f"{line} tsc_early_khz={tsc_khz()}"]
    sys.exit(f"no such machine: {machine}; there are vmp, q35, microvm")


class Run:
    """A started machine whose console can be read line by line, each line with the time it came."""

    def __init__(self, argv, stdin=subprocess.DEVNULL):
        self.started = time.monotonic()
        self.argv = argv
        self.process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.buffer = b""
        os.set_blocking(self.process.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def lines(self, timeout):
        """Yields (seconds since the start, text) until the end or the timeout."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not self.selector.select(max(0, end - time.monotonic())):
                continue
            data = os.read(self.process.stdout.fileno(), 65536)
            now = time.monotonic()
            if not data:
                return
            self.buffer += data
            *complete, self.buffer = self.buffer.split(b"\n")
            for line in complete:
                yield now - self.started, line.decode(errors="replace").rstrip("\r")

    def wait_for(self, pattern, timeout=300):
        seen = []
        for when, line in self.lines(timeout):
            seen.append(line)
            if re.search(pattern, line):
                return when
        self.stop()
        sys.exit(f"{self.argv[0]} never printed {pattern!r}; the end of its console:\n" + "\n".join(seen[-15:]) + "\n" +
                 self.process.stderr.read().decode(errors="replace"))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def cpu_seconds(self):
        """User and system time of the process so far."""
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def geometric_mean(values):
    return statistics.geometric_mean(values)


def print_table(rows):
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip())


def dump(document):
    print(json.dumps(document, indent=2))
