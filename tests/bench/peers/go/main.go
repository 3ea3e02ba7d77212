// A typical bridge in Go: one gRPC stream and one goroutine for each reader, net/http for SSE, coder/websocket for
// WebSocket.
//
//	go-bridge PORT SERVICE
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "runnel/bench/runnelpb"
)

type body struct {
	Prompt    string            `json:"prompt"`
	MaxTokens uint32            `json:"max_tokens"`
	Seed      uint64            `json:"seed"`
	Metadata  map[string]string `json:"metadata"`
}

type choice struct {
	Index     uint32 `json:"index"`
	TextBytes uint64 `json:"text_bytes"`
	Crc32     string `json:"crc32"`
}

// The same object as Runnel's event.
type event struct {
	Type     string   `json:"type"`
	Gen      string   `json:"gen"`
	FirstSeq uint64   `json:"first_seq,omitempty"`
	Seq      uint64   `json:"seq"`
	Model    string   `json:"model,omitempty"`
	Choice   *uint32  `json:"choice,omitempty"`
	Text     *string  `json:"text,omitempty"`
	Tokens   *uint32  `json:"tokens,omitempty"`
	Events   uint64   `json:"events,omitempty"`
	Choices  []choice `json:"choices,omitempty"`
	Ms       uint64   `json:"ms"`
}

func eventOf(from *pb.GenerationEvent) event {
	to := event{Gen: from.GenerationId, FirstSeq: from.FirstSeq, Seq: from.Seq, Ms: from.ElapsedUs / 1000}
	switch payload := from.Payload.(type) {
	case *pb.GenerationEvent_Delta:
		to.Type = "delta"
		to.Choice, to.Text, to.Tokens = &payload.Delta.Choice, &payload.Delta.Text, &payload.Delta.Tokens
	case *pb.GenerationEvent_Started:
		to.Type = "started"
		to.Model = payload.Started.Model
	case *pb.GenerationEvent_Done:
		to.Type = "done"
		to.Events = payload.Done.EventCount
		for _, end := range payload.Done.Choices {
			to.Choices = append(to.Choices, choice{end.Index, end.TextBytes, fmt.Sprintf("%08x", end.TextCrc32)})
		}
	default:
		to.Type = "failed"
	}
	return to
}

func requestOf(from *body) *pb.GenerateRequest {
	return &pb.GenerateRequest{
		Prompt: from.Prompt, MaxTokens: &from.MaxTokens, Sampling: &pb.Sampling{Seed: &from.Seed},
		DetachTimeout: &durationpb.Duration{}, Metadata: from.Metadata,
	}
}

type bridge struct {
	client pb.InferenceServiceClient
}

func (b *bridge) sse(w http.ResponseWriter, r *http.Request) {
	var request body
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	stream, err := b.client.Generate(r.Context(), requestOf(&request))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache, no-transform")
	flusher := w.(http.Flusher)
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		e := eventOf(response.Event)
		data, err := json.Marshal(&e)
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(w, "id: %s:%d\nevent: %s\ndata: %s\n\n", e.Gen, e.Seq, e.Type, data); err != nil {
			return
		}
		flusher.Flush()
	}
}

func (b *bridge) ws(w http.ResponseWriter, r *http.Request) {
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"runnel.v1"}, CompressionMode: websocket.CompressionDisabled, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer socket.CloseNow()
	_, first, err := socket.Read(r.Context())
	if err != nil {
		return
	}
	var message struct {
		Body body `json:"body"`
	}
	if err := json.Unmarshal(first, &message); err != nil {
		return
	}
	// Notices when the client disconnects, and replies to pings.
	ctx := socket.CloseRead(context.Background())
	stream, err := b.client.Generate(ctx, requestOf(&message.Body))
	if err != nil {
		return
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return
		}
		e := eventOf(response.Event)
		data, err := json.Marshal(&e)
		if err != nil {
			return
		}
		if err := socket.Write(ctx, websocket.MessageText, data); err != nil {
			return
		}
	}
}

func main() {
	connection, err := grpc.NewClient(os.Args[2], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	b := &bridge{client: pb.NewInferenceServiceClient(connection)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/generations", b.sse)
	mux.HandleFunc("GET /v1/ws", b.ws)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], mux))
}
