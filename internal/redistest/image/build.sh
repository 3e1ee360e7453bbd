#!/usr/bin/env bash
# Makes a Redis image out of the distribution's own Redis package, for machines that have Docker but
# can reach no registry. The tests then run in containers there too, the same way as everywhere else.
#
#   usage: build.sh        needs a Docker daemon, and redis-tools or root and apt-get
#
# The image is tagged redis:<version>, where <version> is what `redis-cli --version` prints, and holds
# nothing but redis-server, redis-cli, bash and the libraries that these three are linked against
# (about 20 MB). It behaves like the official image where tests can see a difference: the same tag
# scheme, redis-server and redis-cli on PATH, /data as working directory, port 6379, an entrypoint
# that takes bare --flags, a .conf path, or a command.
#
# Safe to run twice, and at the same time: it returns at once when any redis:* image is there, and two
# runs that overlap import the same content under the same tag.
set -euo pipefail

say() { printf 'redistest image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

otherwise="or run the tests with LOCKSTEP_REDISTEST=process"
command -v docker >/dev/null || die "no docker client on PATH; install docker.io, $otherwise"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
	die "the Docker daemon does not answer; start it, $otherwise"

present=$(docker image ls --format '{{.Repository}}:{{.Tag}}' redis | head -n 1)
if [[ -n $present ]]; then
	say "$present is here already"
	exit 0
fi

if ! command -v redis-cli >/dev/null; then
	[[ $(id -u) == 0 ]] && command -v apt-get >/dev/null ||
		die "no redis-cli on PATH, and only root with apt-get can install it here; install redis-tools"
	say "installing redis-tools"
	# Not the package redis-server: it would start a daemon on port 6379 and enable it at boot. The
	# server itself is in redis-tools, under the name redis-check-rdb.
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-tools >/dev/null
fi

# One program serves under three names and looks at the name that it was called by.
server=$(command -v redis-server || command -v redis-check-rdb) ||
	die "redis-cli is here but neither redis-server nor redis-check-rdb is"
version=$(redis-cli --version | awk '{print $2}')
[[ $version =~ ^[0-9]+(\.[0-9]+)+$ ]] || die "cannot read a version from: $(redis-cli --version)"

root=$(mktemp -d)
trap 'rm -rf -- "$root"' EXIT

mkdir -p "$root"/{bin,data,etc,tmp,usr/bin,usr/local/bin}
chmod 1777 "$root/tmp" "$root/data"
cp -L -- "$server" "$root/usr/bin/redis-server"
cp -L -- "$(command -v redis-cli)" "$root/usr/bin/redis-cli"
# bash, also as sh: dash has no /dev/tcp, which testcontainers' port check writes to.
cp -L -- "$(command -v bash)" "$root/bin/bash"
ln -s bash "$root/bin/sh"
printf 'root:x:0:0:root:/data:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"

# Every path that ldd prints, the loader's included, at the same place in the image. ldd fails on a program that is
# linked statically and needs nothing; if something is missing in the end, the test run below says so.
{ ldd "$root/usr/bin/redis-server" "$root/usr/bin/redis-cli" "$root/bin/bash" || true; } |
	grep -o '/[^ :)]*' | grep -v "^$root" | sort -u |
	while IFS= read -r library; do
		mkdir -p "$root$(dirname -- "$library")"
		cp -L -- "$library" "$root$library"
	done

cat >"$root/usr/local/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/sh
# Bare flags and a .conf path are for redis-server, as in the official image.
case "${1-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac
exec "$@"
ENTRYPOINT
chmod 755 "$root/usr/local/bin/docker-entrypoint.sh"

tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner -cf - . |
	docker import \
		--change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
		--change 'WORKDIR /data' \
		--change 'EXPOSE 6379' \
		--change 'ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]' \
		--change 'CMD ["redis-server"]' \
		- "redis:$version" >/dev/null

# An image that cannot run is worse than none: the tests would find it and fail far from the cause.
if ! docker run --rm "redis:$version" redis-server --version >&2; then
	docker image rm -f "redis:$version" >/dev/null
	die "the image does not run"
fi
say "made redis:$version"
