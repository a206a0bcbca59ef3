//! Event files, which TensorBoard shows: scalars and hyperparameters.
//!
//! TensorBoard takes each folder as a run, and reads the files whose names contain `tfevents`. Such a file consists of
//! TFRecords, each of which is an `Event` in protobuf. A comment at each field number gives its message and name, as in
//! event.proto, summary.proto, and tensor.proto of TensorBoard, in plugin_data.proto and api.proto of its hparams
//! plugin, and in struct.proto of protobuf.

use std::io::{self, Write};

/// The version of the format. In an earlier version, a step below the previous one removes the points after it.
const FILE_VERSION: &str = "brain.Event:2";

/// An event file.
///
/// Every event is one write. Its time is 0, so that equal runs give equal bytes.
pub struct Events<W: Write> {
    out: W,
}

impl<W: Write> Events<W> {
    /// Starts an event file.
    ///
    /// # Errors
    /// An error of the writer.
    pub fn new(out: W) -> io::Result<Self> {
        let mut this = Self { out };
        // Event.file_version
        this.event(Message::default().string(3, FILE_VERSION))?;
        Ok(this)
    }

    /// A value at a step: one point of the curve with this tag. NaN and infinity are allowed. The value is stored as
    /// f32: the data server that TensorBoard starts by default shows no f64.
    ///
    /// TensorBoard cannot show hyperparameters if the last step of a scalar does not fit in an i32.
    ///
    /// # Errors
    /// An error of the writer.
    pub fn scalar(&mut self, tag: &str, step: i64, value: f64) -> io::Result<()> {
        let tensor = Message::default()
            .varint(1, 1) // TensorProto.dtype: DT_FLOAT
            .bytes(5, &(value as f32).to_le_bytes()); // TensorProto.float_val, packed
        // SummaryMetadata.PluginData.plugin_name
        let plugin_data = Message::default().string(1, "scalars");
        let value = Message::default()
            .string(1, tag) // Summary.Value.tag
            .message(8, tensor) // Summary.Value.tensor
            .message(9, metadata(plugin_data)); // Summary.Value.metadata
        let event = Message::default()
            .varint(2, step as u64) // Event.step: int64, and so not zigzag
            .message(5, summary(value)); // Event.summary
        self.event(event)
    }

    /// The hyperparameters of this run, which is complete. There is no list of the hyperparameters of all runs:
    /// TensorBoard would take the list of a single run and hide the additional ones of others.
    ///
    /// TensorBoard shows no value for a number that is NaN or infinite. It shows every text.
    ///
    /// # Errors
    /// An error of the writer.
    pub fn session<'a>(
        &mut self,
        hyperparameters: impl IntoIterator<Item = (&'a str, Hyperparameter<'a>)>,
    ) -> io::Result<()> {
        let entries = hyperparameters.into_iter().map(|(name, hyperparameter)| {
            Message::default()
                .string(1, name) // SessionStartInfo.HparamsEntry.key
                .message(2, hyperparameter.value()) // SessionStartInfo.HparamsEntry.value
        });
        // SessionStartInfo.hparams
        let start = entries.fold(Message::default(), |start, entry| start.message(1, entry));
        // SessionEndInfo.status: STATUS_SUCCESS
        let end = Message::default().varint(1, 1);
        // HParamsPluginData.session_start_info
        self.hparams("_hparams_/session_start_info", Message::default().message(3, start))?;
        // HParamsPluginData.session_end_info
        self.hparams("_hparams_/session_end_info", Message::default().message(4, end))
    }

    /// The data that the hparams plugin reads. HParamsPluginData.version is omitted and so 0, the version that it
    /// accepts.
    fn hparams(&mut self, tag: &str, content: Message) -> io::Result<()> {
        let plugin_data = Message::default()
            .string(1, "hparams") // SummaryMetadata.PluginData.plugin_name
            .message(2, content); // SummaryMetadata.PluginData.content
        let value = Message::default()
            .string(1, tag) // Summary.Value.tag
            .message(9, metadata(plugin_data)); // Summary.Value.metadata
        // Event.summary
        self.event(Message::default().message(5, summary(value)))
    }

    /// Writes an event as a TFRecord.
    fn event(&mut self, Message(event): Message) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let record = [&length[..], &masked_crc(&length), &event, &masked_crc(&event)].concat();
        self.out.write_all(&record)
    }
}

/// The value of a hyperparameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hyperparameter<'a> {
    /// A number. An integer of more than 53 bits should be a text.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(&'a str),
}

impl Hyperparameter<'_> {
    /// As a `google.protobuf.Value`.
    fn value(self) -> Message {
        let message = Message::default();
        match self {
            Self::Number(number) => message.double(2, number), // Value.number_value
            Self::Text(text) => message.string(3, text),       // Value.string_value
            Self::Flag(flag) => message.varint(4, flag.into()), // Value.bool_value
        }
    }
}

/// The `Summary` of one value.
fn summary(value: Message) -> Message {
    Message::default().message(1, value) // Summary.value
}

/// The `SummaryMetadata` that says which plugin shows a value.
fn metadata(plugin_data: Message) -> Message {
    Message::default().message(1, plugin_data) // SummaryMetadata.plugin_data
}

/// The checksum of a TFRecord: CRC-32C, masked because a CRC of data that contain their own CRC is of little use.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protobuf message: its fields, encoded.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(self, field: u64, value: u64) -> Self {
        self.base128(field << 3).base128(value)
    }

    fn double(self, field: u64, value: f64) -> Self {
        let mut this = self.base128(field << 3 | 1);
        this.0.extend(value.to_le_bytes());
        this
    }

    fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut this = self.base128(field << 3 | 2).base128(value.len() as u64);
        this.0.extend(value);
        this
    }

    fn string(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, Message(value): Self) -> Self {
        self.bytes(field, &value)
    }

    /// Seven bits to a byte, the lowest first; the eighth says that more follow.
    fn base128(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(write: impl FnOnce(&mut Events<&mut Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Events::new(&mut out).unwrap()).unwrap();
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The bytes of TensorBoard's `RecordWriter` for `Event(file_version="brain.Event:2")`.
    const VERSION: &str = "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc985129";

    const HOSTILE: [&str; 7] =
        ["", "\0", "\n\r\t\"\\\u{1b}", "a/b//../c", "é\u{301}\u{202e}", "\u{1f525}\u{10ffff}", "{}%s"];

    /// The payloads of a file's records, whose checksums must be right.
    fn records(mut file: &[u8]) -> Vec<&[u8]> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let (length, rest) = file.split_at(8);
            let (sum, rest) = rest.split_at(4);
            assert_eq!(sum, masked_crc(length));
            let (record, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (sum, rest) = rest.split_at(4);
            assert_eq!(sum, masked_crc(record));
            records.push(record);
            file = rest;
        }
        records
    }

    /// The bytes of a length-delimited field, the first with this number.
    fn field(mut message: &[u8], wanted: u64) -> &[u8] {
        fn base128(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (&byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        loop {
            let key = base128(&mut message);
            let length = match key & 7 {
                0 => {
                    base128(&mut message);
                    continue;
                }
                1 => 8,
                _ => base128(&mut message) as usize,
            };
            let (value, rest) = message.split_at(length);
            if key >> 3 == wanted {
                return value;
            }
            message = rest;
        }
    }

    #[test]
    fn an_empty_file_has_a_version() {
        assert_eq!(hex(&file(|_| Ok(()))), VERSION);
    }

    /// The bytes are those of TensorBoard's `RecordWriter` for the messages of PyTorch's `add_scalar` with `new_style`,
    /// without a time.
    #[test]
    fn scalars_are_those_of_pytorch() {
        let mut out = Vec::new();
        let mut events = Events::new(&mut out).unwrap();
        events.scalar("loss", 300, 0.1).unwrap();
        events.scalar("loss", 301, 1e39).unwrap();
        let expected = [
            VERSION,
            "2400000000000000422b804d10ac022a1f0a1d0a046c6f7373420808012a04cdcccc3d4a0b0a090a077363616c",
            "6172730549ed4b2400000000000000422b804d10ad022a1f0a1d0a046c6f7373420808012a040000807f4a0b0a",
            "090a077363616c61727331b68377",
        ];
        assert_eq!(hex(&out), expected.concat());
    }

    /// The bytes are those of TensorBoard's `RecordWriter` for the messages of PyTorch's `add_hparams`, without a time.
    #[test]
    fn hyperparameters_are_those_of_pytorch() {
        let hyperparameters = [
            ("a", Hyperparameter::Flag(false)),
            ("lr", Hyperparameter::Number(0.1)),
            ("name", Hyperparameter::Text("adam")),
        ];
        let written = file(|events| events.session(hyperparameters));
        let expected = [
            VERSION,
            "5d00000000000000615bbbb92a5b0a590a1c5f68706172616d735f2f73657373696f6e5f73746172745f696e666f4a390a37",
            "0a0768706172616d73122c1a2a0a070a0161120220000a0f0a026c721209119a9999999999b93f0a0e0a046e616d6512061a04",
            "6164616dfcb3e8a3",
            "33000000000000000ca720562a310a2f0a1a5f68706172616d735f2f73657373696f6e5f656e645f696e666f4a110a0f0a0768",
            "706172616d7312042202080149a46d4d",
        ];
        assert_eq!(hex(&written), expected.concat());
    }

    /// Two of the checksums are from RFC 3720, B.4, and one is the check value of CRC-32C.
    #[test]
    fn checksums_are_masked() {
        let unmasked = |bytes: &[u8]| u32::from_le_bytes(masked_crc(bytes)).wrapping_sub(0xa282_ead8).rotate_left(15);
        assert_eq!(unmasked(&[0; 32]), 0x8a91_36aa);
        assert_eq!(unmasked(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(unmasked(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b""), 0xa282_ead8_u32.to_le_bytes());
    }

    #[test]
    fn values_are_those_of_f32() {
        let values = [0.0, -0.0, 0.1, f64::MIN_POSITIVE, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for value in values {
            let written = file(|events| events.scalar("x", 0, value));
            let value_message = field(field(records(&written)[1], 5), 1);
            assert_eq!(field(field(value_message, 8), 5), (value as f32).to_le_bytes());
        }
    }

    #[test]
    fn hostile_strings_are_unchanged() {
        let long = "é".repeat(100_000);
        for text in HOSTILE.into_iter().chain([long.as_str()]) {
            let written = file(|events| {
                events.scalar(text, i64::MIN, 0.0)?;
                events.session([(text, Hyperparameter::Text(text))])
            });
            let records = records(&written);
            let values: Vec<_> = records[1..].iter().map(|record| field(field(record, 5), 1)).collect();
            let content = |value| field(field(field(value, 9), 1), 2);
            assert_eq!(field(values[0], 1), text.as_bytes());
            let entry = field(field(content(values[1]), 3), 1);
            assert_eq!(field(entry, 1), text.as_bytes());
            assert_eq!(field(field(entry, 2), 3), text.as_bytes());
        }
    }

    #[test]
    fn a_writer_that_fails_is_reported() {
        let mut space = [0; 40];
        let mut events = Events::new(&mut space[..]).unwrap();
        assert!(events.scalar("loss", 1, 0.5).is_err());
        assert!(Events::new(&mut [0; 3][..]).is_err());
    }
}
