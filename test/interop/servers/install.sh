#!/bin/sh
# Installs the servers that the test starts itself: Debian's packages, and Express
# from npm. No service is started: the test uses the programs only.
set -eu
cd "$(dirname "$0")"

packages="nginx haproxy php-fpm php-cli apache2-bin libapache2-mod-php gunicorn python3-flask"

missing=
for program in /usr/sbin/nginx /usr/sbin/haproxy /usr/sbin/php-fpm* /usr/bin/php /usr/sbin/apache2 /usr/lib/apache2/modules/libphp*.so /usr/bin/gunicorn; do
	[ -e "$program" ] || missing="$missing $program"
done
/usr/bin/python3 -c 'import flask' 2>/dev/null || missing="$missing flask"

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
		echo "missing:$missing"
		echo "on Debian or Ubuntu, as root: apt-get install --no-install-recommends $packages"
		echo "(that starts nginx and php-fpm as services, which the test does not need)"
		exit 1
	fi
	# While this file is there, Debian starts no services of what is installed.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f $policy' EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
	fi
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
fi

cd express
npm ci --ignore-scripts --no-audit --no-fund
