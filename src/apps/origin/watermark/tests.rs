//! Marks can be extracted, texts restored, and any split of reads returns the same bytes.

use proptest::prelude::*;

use super::*;

fn source(content: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<usize, ()> + '_ {
    |offset, out| {
        let rest = content
            .get(usize::try_from(offset).unwrap()..)
            .unwrap_or(&[]);
        Ok(out
            .iter_mut()
            .zip(rest)
            .map(|(to, from)| *to = *from)
            .count())
    }
}

fn weave(content_type: &str, content: &[u8], mark: &[u8], piece: usize) -> Option<Vec<u8>> {
    let size = u64::try_from(content.len()).unwrap();
    let header = &content[..content.len().min(HEADER_BYTES)];
    let marked = Marked::new(Scheme::detect(content_type, header, size)?, size, mark)?;
    let mut out = vec![0; usize::try_from(marked.size()).unwrap()];
    for (index, part) in out.chunks_mut(piece).enumerate() {
        let offset = u64::try_from(index * piece).unwrap();
        assert_eq!(
            marked.read_at(offset, part, source(content)),
            Ok(part.len())
        );
    }
    let past = marked.read_at(marked.size(), &mut [0; 9], source(content));
    assert_eq!(past, Ok(0), "nothing behind the end");
    Some(out)
}

fn wav(sample_bits: u16, data: &[u8]) -> Vec<u8> {
    let mut out = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0\x01\0\x01\0".to_vec();
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&sample_bits.to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"tail\x01\0\0\0\x01");
    out
}

fn bmp(pixel_bits: u16, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 54];
    out[..2].copy_from_slice(b"BM");
    out[10] = 54;
    out[28..30].copy_from_slice(&pixel_bits.to_le_bytes());
    out.extend_from_slice(data);
    out
}

#[test]
fn marks_are_found_in_media() {
    let data: Vec<u8> = (0..3000u32)
        .map(|index| u8::try_from(index * 7 % 256).unwrap())
        .collect();
    let ppm = |head: &str| [head.as_bytes(), &data].concat();
    for (name, content) in [
        ("wav 8", wav(8, &data)),
        ("wav 16", wav(16, &data)),
        ("wav 24", wav(24, &data)),
        ("ppm", ppm("P6 # a comment\n20 50\n255\n")),
        ("pgm", ppm("P5\n60 50\n255 ")),
        ("pgm 16", ppm("P5 30 50 65535\n")),
        ("bmp 24", bmp(24, &data)),
        ("bmp 32", bmp(32, &data)),
    ] {
        let marked = weave("image/x-any", &content, b"client-7", 700).unwrap();
        assert_eq!(marked.len(), content.len(), "{name}");
        let changed = marked.iter().zip(&content).filter(|(a, b)| a != b).count();
        assert!(changed > 300, "{name}: {changed} bytes differ");
        assert!(
            marked.iter().zip(&content).all(|(a, b)| a | 1 == b | 1),
            "{name}: only least bits"
        );
        assert_eq!(
            extract("image/x-any", &marked).as_deref(),
            Some(&b"client-7"[..]),
            "{name}"
        );
        assert_eq!(
            extract("image/x-any", &content),
            None,
            "{name}: no mark in the original"
        );
    }
}

#[test]
fn what_is_not_a_sample_stays_as_it_is() {
    let content = wav(16, &[0x80; 1000]);
    let marked = weave("audio/x-wav", &content, b"m", 64).unwrap();
    let data = content.len() - 1000 - 9;
    assert_eq!(marked[..data], content[..data], "header");
    assert_eq!(
        marked[data + 1000..],
        content[data + 1000..],
        "bytes after the samples"
    );
    assert!(
        (0..500).all(|k| marked[data + 2 * k + 1] == 0x80),
        "high bytes"
    );
}

#[test]
fn objects_that_carry_no_mark() {
    let data = [0u8; 1000];
    for (name, content) in [
        ("other format", b"\x7fELF".repeat(100)),
        ("empty", Vec::new()),
        ("compressed wav", {
            let mut w = wav(16, &data);
            w[32] = 2;
            w
        }),
        ("wav without samples", wav(16, &[])),
        ("wav with too few samples", wav(16, &data[..40])),
        ("bmp with a palette", bmp(8, &data)),
        ("bmp that begins inside its header", {
            let mut b = bmp(24, &data);
            b[10] = 3;
            b
        }),
        ("plain ppm", b"P3 1 1 255 1 2 3".to_vec()),
        ("endless ppm header", b"P6 #".repeat(2000)),
        ("huge ppm", b"P6 18446744073709551615 9 255 ".repeat(9)),
    ] {
        assert_eq!(
            weave("application/octet-stream", &content, b"mark", 100),
            None,
            "{name}"
        );
    }
}

#[test]
fn marks_have_an_alphabet_and_a_length() {
    let longest = [b'm'; MAX_MARK_BYTES];
    for (mark, want) in [
        (&b"a"[..], true),
        (b"A-z_0.9", true),
        (&longest, true),
        (&[b'm'; MAX_MARK_BYTES + 1], false),
        (b"", false),
        (b"a b", false),
        (b"]", false),
        (b"\xc3\xa9", false),
    ] {
        assert_eq!(is_mark(mark), want, "{mark:?}");
        assert_eq!(
            Marked::new(Scheme::Text, 10, mark).is_some(),
            want,
            "{mark:?}"
        );
    }
}

#[test]
fn texts_show_the_mark_in_every_block() {
    let text = "A line of text.\n".repeat(1000);
    let marked = weave("text/plain", text.as_bytes(), b"me", 1000).unwrap();
    let marked = String::from_utf8(marked).unwrap();
    assert_eq!(
        marked
            .lines()
            .filter(|line| *line == "[watermark me]")
            .count(),
        4
    );
    assert_eq!(marked.replace("[watermark me]\n", ""), text);
    assert_eq!(
        weave("text/plain", b"", b"me", 9).unwrap(),
        b"",
        "no block, no mark"
    );
}

#[test]
fn characters_are_not_cut() {
    for shift in 0..4 {
        let text = format!("{}{}", "x".repeat(shift), "\u{1f30a}".repeat(3000));
        let marked = weave("text/plain", text.as_bytes(), b"me", 977).unwrap();
        let marked = String::from_utf8(marked).expect("still UTF-8");
        assert_eq!(marked.replace("[watermark me]\n", ""), text, "{shift}");
    }
}

#[test]
fn a_text_that_quotes_a_mark_keeps_it() {
    let text = "[watermark other]\nline\n".repeat(400);
    let marked = weave("text/plain", text.as_bytes(), b"mine", 4000).unwrap();
    let want = (b"mine".to_vec(), text.into_bytes());
    assert_eq!(extract_text(&marked), Some(want));
}

proptest! {
    #[test]
    fn texts_come_back_whole(
        text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'x'), any::<u8>()], 1..10_000),
        mark in "[A-Za-z0-9._-]{1,64}",
        piece in 1usize..5000,
    ) {
        let marked = weave("text/plain", &text, mark.as_bytes(), piece).unwrap();
        prop_assert_eq!(&marked, &weave("text/plain", &text, mark.as_bytes(), 1 << 20).unwrap());
        prop_assert_eq!(extract_text(&marked), Some((mark.into_bytes(), text)));
    }

    #[test]
    fn any_split_of_media_gives_the_same_bytes(piece in 1usize..300, mark in "[a-z]{1,20}") {
        let content = wav(16, &[3; 2000]);
        let whole = weave("audio/x-wav", &content, mark.as_bytes(), 1 << 20);
        prop_assert_eq!(weave("audio/x-wav", &content, mark.as_bytes(), piece), whole);
    }

    #[test]
    fn no_header_panics(
        start in prop::sample::select(vec![&b"RIFF\0\0\0\0WAVE"[..], b"P5", b"P6 ", b"BM", b"P6 9 9 255 "]),
        rest in proptest::collection::vec(any::<u8>(), 0..200),
        size: u64,
    ) {
        let header = [start, &rest].concat();
        if let Some(scheme) = Scheme::detect("x/y", &header, size)
            && let Some(marked) = Marked::new(scheme, size, b"mark")
        {
            let _ = marked.read_at(0, &mut [0; 500], source(&header));
        }
    }
}
