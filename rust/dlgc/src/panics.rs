//! Panics of libraries on hostile input, turned into values and kept from standard error.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does some work; where it panics, what the panic said.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_CAUGHT.get() {
                let text = info.payload().downcast_ref::<&str>().map(ToString::to_string);
                SAID.set(text.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default());
            } else {
                before(info);
            }
        }));
    });
    let outer = IS_CAUGHT.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(outer);
    done.map_err(|_| SAID.take())
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_is_a_value_that_says_what_it_said() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("divided by {}", 0)), Err::<(), _>("divided by 0".to_owned()));
        assert_eq!(caught(|| caught(|| panic!("inner")).is_err()), Ok(true));
    }
}
