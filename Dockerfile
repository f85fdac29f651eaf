# docker build -t footfall .
# docker run --rm -p 127.0.0.1:8000:8000 footfall
#
# The templates and static files are compiled into the binary: it is all that the second stage needs.

FROM rust:1-bookworm AS build
# librdkafka, OpenSSL and zlib are built from source.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What `footfall --version` says, because the repository is not copied: --build-arg COMMIT=$(git rev-parse --short HEAD)
ARG COMMIT
RUN FOOTFALL_COMMIT=$COMMIT cargo build --release --locked --bin footfall

FROM debian:bookworm-slim
# The certificates of the public authorities, for TLS to a Kafka cluster.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --shell /usr/sbin/nologin footfall
COPY --from=build /src/target/release/footfall /usr/local/bin/footfall
COPY LICENSE LICENSE-APACHE LICENSE-MIT /usr/share/doc/footfall/
USER footfall
WORKDIR /var/empty
ENV ROCKET_ADDRESS=0.0.0.0
EXPOSE 8000
# The image has no curl; bash can open a TCP connection by itself. With HTTPS the answer is 400, which also shows that the
# process answers.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${ROCKET_PORT:-8000} && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [[ \"$status\" = 200 || \"$status\" = 400 ]]"]
ENTRYPOINT ["footfall"]
