# Caddy with this module, built from this checkout.
#
#	docker build -f xcaddy.Dockerfile -t caddy-paywall .
ARG CADDY_VERSION=2.11.9

FROM caddy:${CADDY_VERSION}-builder AS builder
ARG CADDY_VERSION
# cgo makes the recovery of signatures about three times faster.
RUN apk add --no-cache gcc musl-dev
ENV CGO_ENABLED=1
COPY . /src
RUN xcaddy build v${CADDY_VERSION} \
	--with github.com/caddy-paywall/caddy-paywall@v0.0.0=/src \
	--output /usr/bin/caddy

FROM caddy:${CADDY_VERSION}
COPY --from=builder /usr/bin/caddy /usr/bin/caddy
