// A chat client to copy: it posts the lines of standard input and prints what
// the chat says, across every loss of the connection, without a gap or a
// duplicate.
//
//	go run . 127.0.0.1:8083 CHAT TOKEN [AFTER_SEQ]
package main

//go:generate protoc -I ../../proto --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative chat_v1/chat.proto

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/chat-service/chat_v1/chat_v1"
)

const (
	firstPause = 200 * time.Millisecond
	longPause  = 5 * time.Second
	// Posts on their way at a time; more lines wait to be read.
	mostUnsent = 32
)

type client struct {
	chat, token string
	// The newest message that was printed: where to go on.
	lastSeq int64
	// What has not come back yet, in the order in which it was typed.
	unsent []*pb.Post
	// Nil once standard input has ended.
	lines <-chan string
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: HOST:PORT CHAT TOKEN [AFTER_SEQ]")
		os.Exit(2)
	}
	c := &client{chat: os.Args[2], token: os.Args[3], lines: readLines()}
	if len(os.Args) > 4 {
		c.lastSeq, _ = strconv.ParseInt(os.Args[4], 10, 64)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	pause := firstPause
	for {
		before := c.lastSeq
		err := c.session(pb.NewChatV1Client(connection))
		if err == nil {
			return
		}
		switch status.Code(err) {
		case codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.InvalidArgument, codes.OutOfRange:
			fmt.Fprintln(os.Stderr, err) // Trying again would not help.
			os.Exit(1)
		}
		if c.lastSeq > before {
			pause = firstPause
		}
		fmt.Fprintln(os.Stderr, "reconnecting:", err)
		// Of random length, so that clients do not come back all at once.
		time.Sleep(time.Duration(float64(pause) * (0.5 + mathrand.Float64()/2)))
		pause = min(2*pause, longPause)
	}
}

// session is one connection, from the join to its end. Nil: all is said.
func (c *client) session(chats pb.ChatV1Client) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	stream, err := chats.ConnectChat(ctx)
	if err != nil {
		return err
	}
	// Resume behind what was seen, then post again what has not come back. A
	// failed Send shows as the error that Recv gives.
	_ = stream.Send(&pb.ConnectChatRequest{ChatId: c.chat, AfterSeq: &c.lastSeq})
	for _, post := range c.unsent {
		_ = stream.Send(&pb.ConnectChatRequest{Send: post})
	}
	frames, failed := receive(ctx, stream)
	for c.lines != nil || len(c.unsent) > 0 {
		lines := c.lines
		if len(c.unsent) >= mostUnsent {
			lines = nil
		}
		select {
		case frame := <-frames:
			c.take(stream, frame)
		case err := <-failed:
			return err
		case line, more := <-lines:
			if !more {
				c.lines = nil
				continue
			}
			post := &pb.Post{Text: line, ClientMessageId: rand.Text()}
			c.unsent = append(c.unsent, post)
			_ = stream.Send(&pb.ConnectChatRequest{Send: post})
		}
	}
	return nil
}

func (c *client) take(stream pb.ChatV1_ConnectChatClient, frame *pb.Message) {
	rejected := frame.GetRejected()
	switch {
	case rejected == nil:
		if frame.Seq <= c.lastSeq {
			return
		}
		c.lastSeq = frame.Seq
		fmt.Printf("%d %s: %s\n", frame.Seq, frame.From, frame.Text)
		c.done(frame.ClientMessageId)
	case codes.Code(rejected.Code) == codes.AlreadyExists:
		// Stored by an earlier attempt.
		c.done(frame.ClientMessageId)
	case rejected.RetryDelay != nil:
		time.Sleep(rejected.RetryDelay.AsDuration())
		for _, post := range c.unsent {
			if post.ClientMessageId == frame.ClientMessageId {
				_ = stream.Send(&pb.ConnectChatRequest{Send: post})
			}
		}
	default:
		fmt.Fprintf(os.Stderr, "rejected: %s: %s\n", rejected.Reason, rejected.Message)
		c.done(frame.ClientMessageId)
	}
}

// done forgets a post that needs no more sending.
func (c *client) done(id string) {
	for at, post := range c.unsent {
		if id != "" && post.ClientMessageId == id {
			c.unsent = append(c.unsent[:at], c.unsent[at+1:]...)
			return
		}
	}
}

func receive(ctx context.Context, stream pb.ChatV1_ConnectChatClient) (<-chan *pb.Message, <-chan error) {
	frames, failed := make(chan *pb.Message), make(chan error, 1)
	go func() {
		for {
			frame, err := stream.Recv()
			if err == io.EOF {
				err = status.Error(codes.Unavailable, "the stream has ended")
			}
			if err != nil {
				failed <- err
				return
			}
			select {
			case frames <- frame:
			case <-ctx.Done():
				return
			}
		}
	}()
	return frames, failed
}

func readLines() <-chan string {
	lines := make(chan string)
	go func() {
		scanner := bufio.NewScanner(os.Stdin)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
		close(lines)
	}()
	return lines
}
