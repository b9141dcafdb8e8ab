package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const table = `DROP TABLE IF EXISTS baseline_message;
CREATE TABLE baseline_message (
	id bigserial PRIMARY KEY, chat_id bigint NOT NULL, sender text NOT NULL,
	text text NOT NULL, client_message_id text, created_at timestamptz NOT NULL);
CREATE INDEX ON baseline_message (chat_id, id);`

const insert = `INSERT INTO baseline_message
	(chat_id, sender, text, client_message_id, created_at)
	VALUES ($1, $2, $3, $4, $5) RETURNING id`

const connections = 16

// store numbers the messages itself where it has no database.
type store struct {
	pool *pgxpool.Pool
	last atomic.Int64
}

func openStore(ctx context.Context, address string) (*store, error) {
	if address == "memory" {
		return &store{}, nil
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, table); err != nil {
		return nil, err
	}
	return &store{pool: pool}, nil
}

// insert stores a message, and gives its number.
func (s *store) insert(
	ctx context.Context, chat int64, from, text, clientMessageID string, at time.Time,
) (id int64, err error) {
	if s.pool == nil {
		return s.last.Add(1), nil
	}
	row := s.pool.QueryRow(ctx, insert, chat, from, text, clientMessageID, at)
	err = row.Scan(&id)
	return id, err
}
