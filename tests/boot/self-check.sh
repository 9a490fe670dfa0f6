#!/bin/sh
# Runs in a guest: does the CPU, the memory and the clock do what Linux programs need? One line for each check, "ok" or
# what is wrong; exit status 0 when all are right.
#
# usage: self-check.sh CPUS
cpus=$1
failed=0
check() { # NAME EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then echo "ok $1"; else echo "WRONG $1: expected $2, got $3"; failed=1; fi
}
between() { # NAME LOW HIGH ACTUAL
  if [ "$4" -ge "$2" ] && [ "$4" -le "$3" ]; then echo "ok $1 ($4)"; else echo "WRONG $1: $4 is not in $2..$3"; failed=1; fi
}

# files hashed: against sums that another computer made
check sha256 b2bc7d3f8b652d2ec96865b68ad8f80e22cca174abe1aed7889e242a747d590f "$(seq 1 100000 | sha256sum | cut -d' ' -f1)"
check busybox "$(cat /etc/busybox.sha256)" "$(sha256sum </bin/busybox)"
dd if=/dev/urandom of=/tmp/a bs=64k count=64 2>/dev/null
cp /tmp/a /tmp/b
check copy 0 "$(cmp /tmp/a /tmp/b >/dev/null; echo $?)"
check gzip "$(md5sum </tmp/a)" "$(gzip <"/tmp/a" | gunzip | md5sum)"
rm /tmp/a /tmp/b

# processes forked
count=0
for i in $(seq 1 100); do (exit 3) || count=$((count + $?)); done
check fork 300 $count
pids=''
for i in $(seq 1 20); do sh -c "exit $i" & pids="$pids $!"; done
sum=0
for pid in $pids; do wait $pid || sum=$((sum + $?)); done
check wait 210 $sum
check pipeline 1000 "$(seq 1 1000 | cat | cat | sort -n | tail -1)"

# signals delivered
got=0
trap 'got=$((got + 1))' USR1
for i in 1 2 3 4 5; do kill -USR1 $$; done
check signal 5 $got
sh -c 'kill -TERM $$'; check terminated 143 $?
sh -c 'kill -SEGV $$' 2>/dev/null; check crashed 139 $?
timeout 1 sleep 20; check timeout 143 $?

# timers kept: hundredths of a second
uptime() { tr -d . </proc/uptime | cut -d' ' -f1; }
start=$(uptime); sleep 1; between sleep 99 160 $(($(uptime) - start))
start=$(uptime); for i in 1 2 3 4 5 6 7 8 9 10; do usleep 20000; done; between usleep 20 80 $(($(uptime) - start))

# the CPUs
check cpus "$cpus" "$(grep -c '^processor' /proc/cpuinfo)"
check online "0$([ "$cpus" = 1 ] || echo "-$((cpus - 1))")" "$(cat /sys/devices/system/cpu/online)"
for flag in fpu tsc cx8 apic cmov mmx fxsr sse sse2 syscall nx lm; do
  grep -q "^flags.* $flag\( \|$\)" /proc/cpuinfo || { echo "WRONG cpuinfo: no $flag"; failed=1; }
done
check together "$cpus" "$(for cpu in $(seq 0 $((cpus - 1))); do taskset -c "$cpu" sh -c 'seq 1 20000 | md5sum' & done | uniq -c | awk '{print $1}')"
before=$(awk '/^ *LOC:/ {s = 0; for (i = 2; i <= NF; ++i) if ($i + 0 > 0) ++s; print s}' /proc/interrupts)
check ticking "$cpus" "$before"

# arithmetic in floating point, as awk has it
check root 1.4142135624 "$(awk 'BEGIN {x = 1; for (i = 0; i < 20; ++i) x = (x + 2 / x) / 2; printf "%.10f", x}')"
check series 3.14159 "$(awk 'BEGIN {for (i = 0; i < 200000; ++i) s += (i % 2 ? -4 : 4) / (2 * i + 1); printf "%.5f", s}')"

# what went wrong in the kernel meanwhile
check oops 0 "$(dmesg | grep -cE 'BUG:|Oops|WARNING:|rcu_.*stall|soft lockup|Call Trace')"
exit $failed
