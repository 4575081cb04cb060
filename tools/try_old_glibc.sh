#!/usr/bin/env bash
# Installs a wheel on Debian 11 (glibc 2.31) and runs it there: the demo, and each kernel table.
#
#   sudo tools/try_old_glibc.sh dist/gemtp_native-*-cp311-*.whl [FOLDER]
#
# As root, on Debian, with debootstrap and python3-pip. Debian 11 has no Python that is new enough, so
# that of Debian 12 is built there from its source: some minutes. FOLDER (/var/tmp/gemtp-debian-11)
# keeps the system and that Python for the next time.
set -euo pipefail
[[ $# -ge 1 && -f $1 ]] || { echo "usage: $0 WHEEL [FOLDER]" >&2; exit 2; }
wheel=$(realpath "$1")
system=$(realpath -m "${2:-/var/tmp/gemtp-debian-11}")
inside() { chroot "$system" /usr/bin/env -i PATH=/opt/python/bin:/usr/bin:/bin LC_ALL=C.UTF-8 "$@"; }

if [[ ! -x $system/opt/python/bin/python3 ]]; then
  [[ -e $system/etc/debian_version ]] || debootstrap --variant=minbase bullseye "$system"
  inside apt-get install -y -qq --no-install-recommends gcc make libc6-dev zlib1g-dev libffi-dev
  # The source by apt, with lists of its own: most systems have no deb-src line.
  apt=$system/var/gemtp-apt
  mkdir -p "$apt/lists/partial" "$system/src"
  keys=/usr/share/keyrings/debian-archive-keyring.gpg
  echo "deb-src [signed-by=$keys] http://deb.debian.org/debian bookworm main" >"$apt/sources.list"
  options=(-o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=-
    -o Dir::State::Lists="$apt/lists")
  apt-get "${options[@]}" update -qq
  (cd "$system/src" && apt-get "${options[@]}" source --download-only -qq python3.11)
  tar -C "$system/src" -xf "$system"/src/python3.11_*.orig.tar.*
  inside sh -ec 'cd /src/Python-3.11.*; ./configure -q --prefix=/opt/python >/dev/null
    make -s -j"$(nproc)" >/dev/null 2>&1; make -s install >/dev/null 2>&1'
fi

# What the wheel needs comes from outside: that Python has no TLS.
wheels=$system/wheels
rm -rf "$wheels"
platforms=()
for minor in 31 28 27 17; do platforms+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
python3 -m pip download -q --only-binary :all: --python-version 3.11 "${platforms[@]}" \
  --platform "manylinux2014_$(uname -m)" --dest "$wheels" "$wheel"
rm -rf "$system/env"
inside python3 -m venv /env
inside /env/bin/pip install -q --no-index --find-links /wheels gemtp-native
inside ldd --version | head -n 1
inside /env/bin/gemtp info
for isa in "" scalar; do
  inside ${isa:+GEMTP_ISA=$isa} /env/bin/gemtp demo --runs 1
done
