# Caddy with this module, built from this checkout:
#
#	docker build -f xcaddy.Dockerfile -t caddy-paywall .
#
# or, without its files, with a released version of the module:
#
#	docker build -f xcaddy.Dockerfile --build-arg PAYWALL=v1.2.3 -t caddy-paywall .
#
# Run it with what must outlive it in volumes: /data has the ledger and the
# certificates, /config the last config.
#
#	docker run -d -p 80:80 -p 443:443 -p 443:443/udp --cap-drop ALL --cap-add NET_BIND_SERVICE \
#		-v caddy_data:/data -v caddy_config:/config -v $PWD/Caddyfile:/etc/caddy/Caddyfile:ro caddy-paywall
#
# It runs as user 1000. A volume that root has written to is handed over once:
#
#	docker run --rm --user 0 -v caddy_data:/data caddy-paywall chown -R 1000:1000 /data
#
# Tags move. To build from the same bytes each time, ask for the digests and give
# them along:
#
#	docker buildx imagetools inspect caddy:2.11.9-builder   # and caddy:2.11.9
#	docker build … --build-arg BUILDER_IMAGE=caddy:2.11.9-builder@sha256:… --build-arg CADDY_IMAGE=caddy:2.11.9@sha256:…
ARG CADDY_VERSION=2.11.9
ARG BUILDER_IMAGE=caddy:${CADDY_VERSION}-builder
ARG CADDY_IMAGE=caddy:${CADDY_VERSION}

FROM ${BUILDER_IMAGE} AS builder
ARG CADDY_VERSION
# The version to build: a released one, or any name and where its files are.
ARG PAYWALL=v0.0.0=/src
# cgo makes the recovery of signatures about three times faster.
RUN apk add --no-cache gcc musl-dev
ENV CGO_ENABLED=1
# What comes along is named in .dockerignore.
COPY . /src
RUN xcaddy build "v${CADDY_VERSION}" \
	--with "github.com/caddy-paywall/caddy-paywall@${PAYWALL}" \
	--output /usr/bin/caddy \
	&& setcap cap_net_bind_service=+ep /usr/bin/caddy

FROM ${CADDY_IMAGE}
COPY --from=builder /usr/bin/caddy /usr/bin/caddy
# The capability lets the user below listen on ports 80 and 443. A builder that
# loses it in the copy fails here, and not when the server starts. Because of it
# the binary does not start where NET_BIND_SERVICE is taken from the container.
RUN getcap /usr/bin/caddy | grep -q cap_net_bind_service \
	&& addgroup -g 1000 caddy \
	&& adduser -D -H -u 1000 -G caddy -h /data/caddy -s /sbin/nologin caddy \
	&& chown -R 1000:1000 /config /data
VOLUME ["/config", "/data"]
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
# The admin endpoint answers while Caddy runs a config. Where the config moves it
# or turns it off, name another URL, such as a free page of a site over http.
ENV CADDY_HEALTH_URL=http://127.0.0.1:2019/config/
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
	CMD wget -q -T 3 -O /dev/null "$CADDY_HEALTH_URL" || exit 1
