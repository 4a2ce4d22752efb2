#!/bin/sh
# generation.sh RUN NAME: makes the dump of a generation of kernels that tests
# share from the folder of a run:
#
#	NAME.vmcore.zst  the pages that generation.commands reads, the memory map
#	                 and the free lists; plain pages, compressed as a whole
#	NAME.console     what the kernel said from the crash on
#	NAME.proc.zip    the guest's /proc before the crash; of kallsyms every
#	                 hundredth line and all of modules
#
# To be run in the root of the repository.
set -eu
run=$1 to=crashkit/testdata/$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

go build -o "$tmp/crashkit" ./crashkit/cmd/crashkit
value() { "$tmp/crashkit" -c "rd $1" "$run/vmcore" | awk '{print $2}'; }
{
	cat crashkit/testdata/generation.commands
	echo "rd $(value vmemmap_base) 1048576" # 131072 struct pages, for 512 MiB
	echo "struct pglist_data $(value node_data)"
} >"$tmp/commands"
"$tmp/crashkit" minimize -i "$tmp/commands" "$run/vmcore" "$tmp/vmcore"
"$tmp/crashkit" dump -f raw "$tmp/vmcore" "$tmp/raw"
zstd -q -19 -f -o "$to.vmcore.zst" "$tmp/raw"

# The capture kernel says on which console it boots.
awk '/ Linux version /{on=0} /: Trigger a crash|BUG: /{on=1} on' "$run/console.log" >"$to.console"

mkdir "$tmp/proc"
proc=$run/truth/proc
[ -d "$proc" ] || proc=$run/proc
(cd "$proc" && cp --parents -r version cmdline meminfo modules [0-9]*/task/*/status [0-9]*/task/*/stack "$tmp/proc")
{
	echo "# in part"
	awk 'NR%100==0 || NF>3' "$proc/kallsyms"
} >"$tmp/proc/kallsyms"
rm -f "$to.proc.zip"
(cd "$tmp/proc" && zip -q -X -9 -r "$tmp/proc.zip" .)
mv "$tmp/proc.zip" "$to.proc.zip"
ls -l "$to".*
