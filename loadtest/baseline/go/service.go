package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/chat-service/chat_v1"
)

type service struct {
	pb.UnimplementedChatV1Server
	chats *chats
	store *store
}

// user takes the token for the user's name.
func user(ctx context.Context) (string, error) {
	for _, value := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if name, ok := strings.CutPrefix(value, "Bearer "); ok {
			return name, nil
		}
	}
	return "", status.Error(codes.Unauthenticated, "no token")
}

// send stores a message and gives it to the chat's readers.
func (s *service) send(
	ctx context.Context, chatID int64, from, text, clientMessageID string,
) (*pb.Message, error) {
	chat, err := s.chats.get(chatID)
	if err != nil {
		return nil, err
	}
	if err := chat.checkMember(from); err != nil {
		return nil, err
	}
	now := time.Now()
	seq, err := s.store.insert(ctx, chatID, from, text, clientMessageID, now)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	message := &pb.Message{
		From:            from,
		Text:            text,
		CreatedAt:       timestamppb.New(now),
		Seq:             seq,
		ChatId:          chatID,
		ClientMessageId: clientMessageID,
	}
	chat.publish(message)
	return message, nil
}

func (s *service) Create(
	ctx context.Context, request *pb.CreateRequest,
) (*pb.CreateResponse, error) {
	user, err := user(ctx)
	if err != nil {
		return nil, err
	}
	members := append(request.GetInfo().GetUsernames(), user)
	return &pb.CreateResponse{Id: s.chats.create(members)}, nil
}

func (s *service) AddMembers(
	ctx context.Context, request *pb.AddMembersRequest,
) (*pb.AddMembersResponse, error) {
	user, err := user(ctx)
	if err != nil {
		return nil, err
	}
	chat, err := s.chats.get(request.ChatId)
	if err != nil {
		return nil, err
	}
	if err := chat.checkMember(user); err != nil {
		return nil, err
	}
	chat.add(request.Usernames)
	return &pb.AddMembersResponse{Chat: &pb.Chat{Id: request.ChatId}}, nil
}

func (s *service) SendMessage(
	ctx context.Context, request *pb.SendMessageRequest,
) (*pb.SendMessageResponse, error) {
	user, err := user(ctx)
	if err != nil {
		return nil, err
	}
	text := request.GetMessage().GetText()
	stored, err := s.send(ctx, request.ChatId, user, text, request.ClientMessageId)
	if err != nil {
		return nil, err
	}
	return &pb.SendMessageResponse{Seq: stored.Seq, CreatedAt: stored.CreatedAt}, nil
}

func (s *service) ConnectChat(
	stream grpc.BidiStreamingServer[pb.ConnectChatRequest, pb.Message],
) error {
	ctx := stream.Context()
	user, err := user(ctx)
	if err != nil {
		return err
	}
	join, err := stream.Recv()
	if err != nil {
		return err
	}
	chatID, err := strconv.ParseInt(join.ChatId, 10, 64)
	if err != nil {
		return status.Error(codes.InvalidArgument, "chat_id")
	}
	chat, err := s.chats.get(chatID)
	if err != nil {
		return err
	}
	if err := chat.checkMember(user); err != nil {
		return err
	}
	reader := chat.join(ctx, join.AfterSeq)
	defer chat.leave(reader)
	failed := make(chan error, 1)
	go func() {
		for {
			// A client that posts no more may go on reading.
			frame, err := stream.Recv()
			if err != nil {
				return
			}
			post := frame.GetSend()
			_, err = s.send(ctx, chatID, user, post.GetText(), post.GetClientMessageId())
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	for {
		select {
		case message := <-reader.messages:
			if err := stream.Send(message); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
