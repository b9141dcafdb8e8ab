// A chat server as it is usually written in Go, to be measured beside ours:
// grpc-go as it comes, a goroutine and a channel a stream, one INSERT a message
// through a pgx pool.
//
// It speaks as much of the same contract as the load generator uses, and makes
// few of its promises: no order between messages sent at the same time, no
// retries, the newest messages only for whoever resumes, and one slow reader
// holds up its chat.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"

	pb "github.com/chat-service/chat_v1"
)

func main() {
	address := flag.String("store", "memory", "memory, or postgres://…")
	flag.Parse()
	store, err := openStore(context.Background(), *address)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	server := grpc.NewServer()
	pb.RegisterChatV1Server(server, &service{chats: newChats(), store: store})
	log.Fatal(server.Serve(listener))
}
