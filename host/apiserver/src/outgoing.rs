//! The bodies of answers: whole, a list streamed in chunks, a watch.
//!
//! Invariant: no more than one chunk is in memory at a time for each answer; the next is made when hyper asks for it, so a
//! slow reader holds references to stored objects and nothing else.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt as _};
use http_body::{Body, Frame, SizeHint};
use oarlock_registry::Stored;

use crate::encode::ItemForm;

/// Lists go out in pieces of about this size.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// Answers from this size on are compressed for those who take gzip.
pub(crate) const GZIP_FROM_BYTES: usize = 128 * 1024;

pub(crate) enum Outgoing {
    Whole(Option<Bytes>),
    List(Box<ListBody>),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Outgoing {
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    /// Holds on to something for as long as the body is being sent, if it is a stream; else lets go of it now.
    pub fn keep(&mut self, what: impl Send + 'static) {
        if let Self::Stream(stream) = self {
            let inner = std::mem::replace(stream, Box::pin(futures::stream::empty()));
            *stream = Box::pin(inner.inspect(move |_| {
                let _ = &what;
            }));
        }
    }

    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::List(_) => "List",
            Self::Stream(_) => "Stream",
        })
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::List(list) => Poll::Ready(list.next_chunk().map(|chunk| chunk.map(Frame::data))),
            Self::Stream(stream) => stream
                .as_mut()
                .poll_next(cx)
                .map(|item| item.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            _ => SizeHint::default(),
        }
    }
}

/// A list on its way out.
pub(crate) struct ListBody {
    form: ItemForm,
    items: std::vec::IntoIter<Stored>,
    /// Text that is due before the next item.
    pending: Vec<u8>,
    first: bool,
    done: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl ListBody {
    /// `head`: everything in front of the first item.
    pub fn new(form: ItemForm, head: Vec<u8>, items: Vec<Stored>, gzip: bool) -> Self {
        let gzip =
            gzip.then(|| GzEncoder::new(Vec::with_capacity(CHUNK_BYTES / 4), Compression::fast()));
        Self {
            form,
            items: items.into_iter(),
            pending: head,
            first: true,
            done: false,
            gzip,
        }
    }

    /// The whole list at once.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.pending);
        while self.write_next(&mut out) {}
        out
    }

    /// Writes an item, or the end; false behind the end.
    fn write_next(&mut self, out: &mut Vec<u8>) -> bool {
        if self.done {
            return false;
        }
        match self.items.next() {
            Some(item) => {
                if !std::mem::take(&mut self.first) {
                    out.push(b',');
                }
                self.form.write_item(out, &item);
            }
            None => {
                out.extend_from_slice(self.form.list_end(self.first));
                self.done = true;
            }
        }
        true
    }

    fn next_chunk(&mut self) -> Option<io::Result<Bytes>> {
        if self.done && self.gzip.is_none() {
            return None;
        }
        let mut out = std::mem::take(&mut self.pending);
        out.reserve(CHUNK_BYTES + CHUNK_BYTES / 4);
        while out.len() < CHUNK_BYTES && self.write_next(&mut out) {}
        let Some(mut encoder) = self.gzip.take() else {
            return Some(Ok(Bytes::from(out)));
        };
        let packed = encoder.write_all(&out).and_then(|()| {
            if self.done {
                return encoder.finish();
            }
            encoder.flush()?;
            let packed = std::mem::take(encoder.get_mut());
            self.gzip = Some(encoder);
            Ok(packed)
        });
        Some(packed.map(Bytes::from))
    }
}

/// Compresses a whole answer.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
