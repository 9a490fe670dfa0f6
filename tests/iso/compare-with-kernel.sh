# modules: loop isofs udf
# Every file of every image: the kernel's isofs and `vmp iso extract` show the same names, content and metadata. Runs in
# the lab (tests/lab/lab), as root.
#
# usage: compare-with-kernel.sh VMP IMAGES-DIR TESTS-DIR
set -uo pipefail
vmp=$1 images=$2 tests=$3
failed=0
mkdir -p /tmp/mounted /tmp/extracted
for image in "$images"/*.iso; do
  name=$(basename "$image" .iso)
  cp "$image" /tmp/image.iso # the loop device wants a file of this kernel's own
  kind=posix
  case $name in joliet | level1 | version2) kind=plain ;; esac
  mount -t iso9660 -o loop,ro /tmp/image.iso /tmp/mounted || { echo "$name: not mounted"; failed=1; continue; }
  rm -rf /tmp/extracted/*
  "$vmp" iso extract /tmp/image.iso -C /tmp/extracted --owners --special >/dev/null || { echo "$name: not extracted"; failed=1; }
  "$tests/describe-tree" /tmp/mounted $kind >/tmp/kernel.txt
  "$tests/describe-tree" /tmp/extracted $kind >/tmp/ours.txt
  # Relocated directories have a name of the format's own in the root, which the kernel shows.
  grep -v '^rr_moved|' /tmp/kernel.txt >/tmp/kernel.shown
  if [ "$name" = level1 ]; then # the kernel shows these names in lower case
    tr 'a-z' 'A-Z' </tmp/kernel.shown >/tmp/kernel.upper && tr 'a-z' 'A-Z' </tmp/ours.txt | LC_ALL=C sort >/tmp/ours.upper
    LC_ALL=C sort -o /tmp/kernel.shown /tmp/kernel.upper && mv /tmp/ours.upper /tmp/ours.txt
  fi
  if diff /tmp/kernel.shown /tmp/ours.txt >/tmp/differences; then
    echo "$name: $(wc -l </tmp/ours.txt) lines the same"
  else
    echo "$name: the kernel (<) and vmp (>) differ"; head -20 /tmp/differences; failed=1
  fi
  umount /tmp/mounted
done
exit $failed
