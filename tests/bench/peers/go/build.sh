#!/usr/bin/env bash
# Generates the Go code of the protocol and builds the bridge. go.sum pins all modules.
#
#   tests/bench/peers/go/build.sh FOLDER

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1
mkdir -p "$out/go-work"
cp "$here"/{main.go,go.mod,go.sum} "$out/go-work/"
cd "$out/go-work"
go build -o "$out/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
own=runnel/bench/runnelpb
maps=Mrunnel/v1/inference.proto=$own,Mgoogle/rpc/status.proto=google.golang.org/genproto/googleapis/rpc/status
PATH=$out:$PATH protoc -I "$here/../../../../proto" \
  --go_out=. --go_opt=module=runnel/bench,"$maps" --go-grpc_out=. --go-grpc_opt=module=runnel/bench,"$maps" \
  runnel/v1/inference.proto
go build -o "$out/go-bridge" .
