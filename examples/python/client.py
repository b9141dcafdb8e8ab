"""A chat client to copy: it posts the lines of standard input and prints what the
chat says, across every loss of the connection, without a gap or a duplicate.

    pip install -r requirements.txt
    python3 client.py 127.0.0.1:8083 CHAT TOKEN [AFTER_SEQ]

chat_v1/ is made of the proto file with

    python3 -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. chat_v1/chat.proto
"""

import asyncio
import random
import sys
import uuid

import grpc

from chat_v1 import chat_pb2 as pb
from chat_v1 import chat_pb2_grpc as rpc

FIRST_PAUSE = 0.2
LONG_PAUSE = 5.0
# Posts on their way at a time; more lines wait to be read.
MOST_UNSENT = 32

# Trying again would not help.
FINAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
}


class Client:
    def __init__(self, address, chat, token, last_seq):
        self.address = address
        self.chat = chat
        self.token = token
        # The newest message that was printed: where to go on.
        self.last_seq = last_seq
        # What has not come back yet, by id, in the order in which it was typed.
        self.unsent = {}
        self.input_ended = False
        self.room = asyncio.Condition()
        self.stream = None

    async def run(self):
        reading = asyncio.create_task(self.read_lines())
        pause = FIRST_PAUSE
        async with grpc.aio.insecure_channel(self.address) as channel:
            while True:
                before = self.last_seq
                try:
                    await self.session(rpc.ChatV1Stub(channel))
                    reading.cancel()
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() in FINAL:
                        raise
                    print("reconnecting:", error.details(), file=sys.stderr, flush=True)
                finally:
                    self.stream = None
                if self.last_seq > before:
                    pause = FIRST_PAUSE
                # Of random length, so that clients do not come back all at once.
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, LONG_PAUSE)

    async def session(self, chats):
        """One connection, from the join to its end; returns when all is said."""
        metadata = (("authorization", f"Bearer {self.token}"),)
        stream = chats.ConnectChat(metadata=metadata)
        # Resume behind what was seen, then post again what has not come back.
        await stream.write(pb.ConnectChatRequest(chat_id=self.chat, after_seq=self.last_seq))
        for post in list(self.unsent.values()):
            await stream.write(pb.ConnectChatRequest(send=post))
        self.stream = stream
        while not (self.input_ended and not self.unsent):
            frame = asyncio.ensure_future(stream.read())
            while not frame.done() and not (self.input_ended and not self.unsent):
                await asyncio.wait({frame}, timeout=0.1)
            if not frame.done():
                break
            if frame.result() is grpc.aio.EOF:
                raise grpc.aio.AioRpcError(
                    await stream.code(), await stream.initial_metadata(),
                    await stream.trailing_metadata(), await stream.details(),
                )
            await self.take(frame.result())
        stream.cancel()

    async def take(self, frame):
        if not frame.HasField("rejected"):
            if frame.seq <= self.last_seq:
                return
            self.last_seq = frame.seq
            print(f"{frame.seq} {getattr(frame, 'from')}: {frame.text}", flush=True)
            await self.done(frame.client_message_id)
            return
        rejected = frame.rejected
        if rejected.code == grpc.StatusCode.ALREADY_EXISTS.value[0]:
            # Stored by an earlier attempt.
            await self.done(frame.client_message_id)
        elif rejected.HasField("retry_delay"):
            await asyncio.sleep(rejected.retry_delay.ToTimedelta().total_seconds())
            if post := self.unsent.get(frame.client_message_id):
                await self.post(post)
        else:
            print(f"rejected: {rejected.reason}: {rejected.message}", file=sys.stderr, flush=True)
            await self.done(frame.client_message_id)

    async def post(self, post):
        if self.stream:
            try:
                await self.stream.write(pb.ConnectChatRequest(send=post))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # The session sees it as well, and the next one posts it.

    async def done(self, id):
        """Forgets a post that needs no more sending."""
        async with self.room:
            self.unsent.pop(id, None)
            self.room.notify_all()

    async def read_lines(self):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            post = pb.Post(text=line.decode().rstrip("\n"), client_message_id=str(uuid.uuid4()))
            async with self.room:
                await self.room.wait_for(lambda: len(self.unsent) < MOST_UNSENT)
                self.unsent[post.client_message_id] = post
            await self.post(post)
        self.input_ended = True


def main():
    if len(sys.argv) < 4:
        sys.exit("usage: client.py HOST:PORT CHAT TOKEN [AFTER_SEQ]")
    address, chat, token = sys.argv[1:4]
    last_seq = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    try:
        asyncio.run(Client(address, chat, token, last_seq).run())
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")


main()
