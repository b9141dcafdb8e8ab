//! Which characters can be seen. What can't makes two names look like one, and a
//! text look like none.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// Whether the character leaves no mark of its own where it stands: white space,
/// controls, format characters (those that turn the direction of writing among
/// them), and what Unicode calls default-ignorable
/// (DerivedCoreProperties.txt, `Default_Ignorable_Code_Point`).
pub(super) fn is_invisible(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_graphic();
    }
    let category = c.general_category();
    c.is_whitespace()
        || matches!(
            category,
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::Unassigned
                | GeneralCategory::PrivateUse
        )
        || is_ignorable(c)
}

/// Whether a combining mark has nothing of the text to stand on, or more than four
/// stand on one character.
pub(super) fn has_odd_marks(text: &str) -> bool {
    const MOST: u32 = 4;
    let mut marks = MOST;
    text.chars().any(|c| {
        let is_mark = c.general_category_group() == GeneralCategoryGroup::Mark;
        marks = if is_mark { marks + 1 } else { 0 };
        marks > MOST
    })
}

/// Whether anything of the text can be seen.
pub(super) fn has_visible(text: &str) -> bool {
    // A mark alone has nothing to stand on.
    let stands = |c: char| {
        c.is_ascii_graphic()
            || (!is_invisible(c) && c.general_category_group() != GeneralCategoryGroup::Mark)
    };
    text.chars().any(stands)
}

/// Those default-ignorable characters that are not format characters, and others
/// without ink: the Braille pattern without a dot, joiners, a filler, a null notehead,
/// and what stands for an object.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2065}'
            | '\u{2800}'
            | '\u{2d7f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{fffc}'
            | '\u{1107f}'
            | '\u{16fe4}'
            | '\u{1d159}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}
