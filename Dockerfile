# The server alone: no shell, no package manager, not root.
# docker build --tag chatd .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# Paths of the build stay out of the binary, and so out of its log.
ENV RUSTFLAGS="--remap-path-prefix=/usr/local/cargo/registry/src= --remap-path-prefix=/src="
RUN cargo build --release --locked --bin chatd
RUN install -D -s target/release/chatd out/chatd && mkdir -p out/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/out/chatd /usr/local/bin/chatd
# The embedded store is ./data/chat.db; with PG_DSN nothing is written.
COPY --from=build --chown=65532:65532 /src/out/data /data
WORKDIR /
VOLUME /data
ENV GRPC_HOST=0.0.0.0 HTTP_HOST=0.0.0.0
EXPOSE 8083 8093
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["chatd", "health"]
ENTRYPOINT ["chatd"]
CMD ["serve"]
