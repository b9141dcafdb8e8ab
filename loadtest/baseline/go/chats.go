package main

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/chat-service/chat_v1"
)

const (
	// Messages that wait for one reader.
	queue = 1024
	// Newest messages of a chat that are kept for whoever joins.
	recent = 256
)

type chats struct {
	sync.RWMutex
	byID map[int64]*chat
}

type chat struct {
	sync.Mutex
	members map[string]struct{}
	recent  []*pb.Message
	readers map[*reader]struct{}
}

type reader struct {
	ctx      context.Context
	messages chan *pb.Message
}

func newChats() *chats {
	return &chats{byID: make(map[int64]*chat)}
}

func (c *chats) create(members []string) int64 {
	made := &chat{members: make(map[string]struct{}), readers: make(map[*reader]struct{})}
	made.add(members)
	c.Lock()
	defer c.Unlock()
	id := int64(len(c.byID) + 1)
	c.byID[id] = made
	return id
}

func (c *chats) get(id int64) (*chat, error) {
	c.RLock()
	defer c.RUnlock()
	if found, ok := c.byID[id]; ok {
		return found, nil
	}
	return nil, status.Error(codes.NotFound, "no such chat")
}

func (c *chat) add(members []string) {
	c.Lock()
	defer c.Unlock()
	for _, member := range members {
		c.members[member] = struct{}{}
	}
}

func (c *chat) checkMember(user string) error {
	c.Lock()
	defer c.Unlock()
	if _, ok := c.members[user]; !ok {
		return status.Error(codes.PermissionDenied, "not a member")
	}
	return nil
}

// join makes a reader that gets what is published from now on, and before it
// what is kept behind after.
func (c *chat) join(ctx context.Context, after *int64) *reader {
	joined := &reader{ctx: ctx, messages: make(chan *pb.Message, queue)}
	c.Lock()
	defer c.Unlock()
	if after != nil {
		for _, message := range c.recent {
			if message.Seq > *after {
				joined.messages <- message
			}
		}
	}
	c.readers[joined] = struct{}{}
	return joined
}

func (c *chat) leave(reader *reader) {
	c.Lock()
	defer c.Unlock()
	delete(c.readers, reader)
}

func (c *chat) publish(message *pb.Message) {
	c.Lock()
	defer c.Unlock()
	for reader := range c.readers {
		select {
		case reader.messages <- message:
		case <-reader.ctx.Done():
		}
	}
	if len(c.recent) == recent {
		c.recent = c.recent[1:]
	}
	c.recent = append(c.recent, message)
}
