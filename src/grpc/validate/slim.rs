//! A SendMessage call as far as the server reads it. The contract's own message has all
//! that the server may say of one, which would be made room for in each call. Names and
//! numbers are those of the contract, so that errors name its fields.

/// [`crate::proto::SendMessageRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SendMessageRequest {
    #[prost(int64, tag = "1")]
    pub chat_id: i64,
    #[prost(message, optional, tag = "2")]
    pub message: Option<Message>,
    #[prost(string, tag = "3")]
    pub client_message_id: String,
}

/// [`crate::proto::Message`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(string, tag = "1")]
    pub from: String,
    #[prost(string, tag = "2")]
    pub text: String,
    #[prost(int64, tag = "14")]
    pub reply_to: i64,
    #[prost(bytes = "vec", tag = "15")]
    pub data: Vec<u8>,
    #[prost(string, tag = "16")]
    pub data_type: String,
    #[prost(string, repeated, tag = "17")]
    pub mentions: Vec<String>,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto;

    #[test]
    fn it_reads_what_the_contract_says() {
        let message = proto::Message {
            from: "alice".into(),
            text: "hällo".into(),
            reply_to: 7,
            data: b"1".into(),
            data_type: "t".into(),
            mentions: vec!["bob".into()],
            ..Default::default()
        };
        let request = proto::SendMessageRequest {
            chat_id: 300,
            message: Some(message.clone()),
            client_message_id: "k".into(),
        };
        let read = SendMessageRequest::decode(&request.encode_to_vec()[..]).unwrap();
        assert_eq!(read.encode_to_vec(), request.encode_to_vec());
        // What is the server's to say is passed over.
        let echoed = proto::SendMessageRequest {
            message: Some(proto::Message {
                seq: 5,
                deleted: true,
                ..message
            }),
            ..request
        };
        let again = SendMessageRequest::decode(&echoed.encode_to_vec()[..]).unwrap();
        assert_eq!(again, read);
    }
}
