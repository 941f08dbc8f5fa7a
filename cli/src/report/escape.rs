//! Text that comes from others, made harmless where it is put. Pure.

/// As text or in a quoted attribute of HTML and SVG. What is no character of HTML becomes U+FFFD.
pub(super) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(' '),
            // Those that turn the direction of writing would show one name as another.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}

/// As a field of CSV (RFC 4180). What a spreadsheet would take for a formula gets an apostrophe before it, as OWASP advises; numbers stay numbers.
pub(super) fn csv(field: &str) -> String {
    let is_number = field.parse::<f64>().is_ok_and(f64::is_finite);
    let is_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) && !is_number;
    let guard = if is_formula { "'" } else { "" };
    if is_formula || field.contains(['"', ',', '\r', '\n', ';', '\t']) {
        format!("\"{guard}{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup() {
        assert_eq!(
            html("<script>alert('x')</script> & \"q\"\u{1b}[2J\u{202e}"),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;q&quot;\u{fffd}[2J\u{fffd}"
        );
        assert_eq!(html("größe 7 µs"), "größe 7 µs");
    }

    #[test]
    fn no_field_is_a_formula_or_ends_its_row() {
        for (field, written) in [
            ("web-03", "web-03"),
            ("a,b", "\"a,b\""),
            ("say \"so\"", "\"say \"\"so\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("+cmd|' /C calc'!A0", "\"'+cmd|' /C calc'!A0\""),
            ("-2+3", "\"'-2+3\""),
            ("\t=1", "\"'\t=1\""),
            ("-17", "-17"),
            ("-1.5", "-1.5"),
            ("-inf", "\"'-inf\""),
            ("", ""),
        ] {
            assert_eq!(csv(field), written, "{field:?}");
        }
    }
}
