//! What an operation tells while it runs: bars on a terminal, plain lines elsewhere, JSON lines with
//! `--json`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat_engine::event::{Event, FileResult, Observer};

use super::{Output, human};

/// How often a plain line tells how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often a JSON line does.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// A table smaller than this is done before its bar could be read.
const BAR_FROM_BYTES: u64 = 8_000_000;

/// Shows one operation. Dropped, it leaves no bar behind.
#[derive(Debug)]
pub struct Progress {
    out: Output,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bars: Option<Bars>,
    done_bytes: u64,
    total_bytes: u64,
    done_tables: u64,
    total_tables: u64,
    started: Instant,
    said: Instant,
    /// Of an operation on several files, which one it is at.
    file: Option<String>,
}

#[derive(Debug)]
struct Bars {
    multi: MultiProgress,
    total: ProgressBar,
    tables: BTreeMap<String, ProgressBar>,
}

impl Progress {
    /// Shows what happens on this output.
    pub fn new(out: &Output) -> Self {
        let options = out.options();
        let quiet = options.verbosity == super::Verbosity::Quiet;
        let bars = (options.stderr_terminal && !options.json && !quiet).then(|| {
            let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let total = multi.add(ProgressBar::new_spinner());
            total.enable_steady_tick(Duration::from_millis(200));
            Bars {
                multi,
                total,
                tables: BTreeMap::new(),
            }
        });
        let now = Instant::now();
        Self {
            out: out.clone(),
            state: Mutex::new(State {
                bars,
                done_bytes: 0,
                total_bytes: 0,
                done_tables: 0,
                total_tables: 0,
                started: now,
                said: now,
                file: None,
            }),
        }
    }

    fn say(&self, state: &State, line: &str) {
        match &state.bars {
            // Above the bars, or they would be drawn through it.
            Some(bars) => {
                let _ = bars.multi.println(line);
            }
            None => self.out.say(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(bars) = &state.bars {
            // Each by itself: what an interrupted table's bar last drew would stay on the screen.
            for bar in bars.tables.values() {
                bar.finish_and_clear();
            }
            bars.total.finish_and_clear();
            let _ = bars.multi.clear();
        }
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count(event);
        if self.out.is_json() {
            self.json(&mut state, event);
            return;
        }
        match event {
            Event::Warning { message } => match &state.bars {
                Some(_) => self.say(&state, &format!("warning: {message}")),
                None => self.out.warn(message),
            },
            Event::StageStarted { stage } => match &state.bars {
                Some(bars) => bars.total.set_message(stage.describe()),
                None => self.out.say(&sentence(stage.describe())),
            },
            Event::FileStarted {
                file,
                number,
                files,
                bytes,
            } => {
                let line = format!("{number} of {files}: {file}, {}", human::bytes(*bytes));
                match &state.bars {
                    Some(bars) => bars.total.set_message(line),
                    None => self.out.detail(&line),
                }
                state.file = (*files > 1).then(|| format!("file {number} of {files}, "));
            }
            Event::FileFinished {
                file,
                number,
                files,
                result,
            } => {
                if let Some(line) = file_line(result) {
                    self.say(&state, &format!("{number} of {files}: {file}: {line}"));
                }
            }
            _ if state.bars.is_some() => state.draw(event),
            Event::TableFinished { table, rows, bytes } => {
                self.out.detail(&format!(
                    "  {table}: {}, {}",
                    human::plural(*rows, "row"),
                    human::bytes(*bytes)
                ));
            }
            Event::TableProgress { .. }
            | Event::CheckProgress { .. }
            | Event::CopyProgress { .. }
                if state.said.elapsed() >= LINE_EVERY =>
            {
                state.said = Instant::now();
                self.out.say(&state.line(event));
            }
            _ => {}
        }
    }
}

impl Progress {
    fn json(&self, state: &mut State, event: &Event) {
        let frequent = matches!(
            event,
            Event::TableProgress { .. } | Event::CheckProgress { .. } | Event::CopyProgress { .. }
        );
        if frequent {
            if state.said.elapsed() < JSON_EVERY {
                return;
            }
            state.said = Instant::now();
        }
        if let Event::TableProgress { table, .. } = event {
            // A sum is worth more than the last few bytes of one table.
            let fields = serde_json::json!({
                "table": table,
                "done_bytes": state.done_bytes,
                "total_bytes": state.total_bytes,
                "done_tables": state.done_tables,
                "total_tables": state.total_tables,
            });
            self.out.event("progress", &fields);
        } else if let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(event) {
            let name = fields
                .remove("event")
                .and_then(|name| name.as_str().map(str::to_owned));
            self.out.event(name.as_deref().unwrap_or("event"), &fields);
        }
    }
}

impl State {
    fn count(&mut self, event: &Event) {
        match event {
            Event::TotalKnown { tables, bytes } => {
                (self.total_tables, self.total_bytes) = (*tables, *bytes);
                (self.done_tables, self.done_bytes) = (0, 0);
                self.started = Instant::now();
            }
            Event::TableProgress { bytes, .. } => self.done_bytes += bytes,
            Event::TableFinished { .. } => self.done_tables += 1,
            _ => {}
        }
    }

    fn draw(&mut self, event: &Event) {
        let Some(bars) = &mut self.bars else { return };
        match event {
            Event::TotalKnown { bytes, .. } => {
                bars.total.set_style(total_style());
                bars.total.set_length(*bytes);
                bars.total.reset();
            }
            Event::TableStarted { table, bytes } if *bytes >= BAR_FROM_BYTES => {
                let bar = bars
                    .multi
                    .insert_before(&bars.total, ProgressBar::new(*bytes));
                bar.set_style(table_style());
                bar.set_prefix(table.clone());
                bars.tables.insert(table.clone(), bar);
            }
            Event::TableProgress { table, bytes } => {
                if let Some(bar) = bars.tables.get(table) {
                    advance(bar, bar.position() + bytes);
                }
                advance(&bars.total, self.done_bytes);
                bars.total.set_message(format!(
                    "{}{}/{} tables",
                    self.file.as_deref().unwrap_or_default(),
                    self.done_tables,
                    self.total_tables
                ));
            }
            Event::TableFinished { table, .. } => {
                if let Some(bar) = bars.tables.remove(table) {
                    bar.finish_and_clear();
                    bars.multi.remove(&bar);
                }
                bars.total.set_message(format!(
                    "{}{}/{} tables",
                    self.file.as_deref().unwrap_or_default(),
                    self.done_tables,
                    self.total_tables
                ));
            }
            Event::CheckProgress {
                packs_done,
                packs_total,
                bytes,
            } => {
                bars.total.set_message(format!(
                    "checking: {packs_done} of {packs_total} packs, {} read",
                    human::bytes(*bytes)
                ));
            }
            Event::CopyProgress {
                packs_done,
                packs_total,
                bytes_done,
                bytes_total,
            } => {
                bars.total.set_style(total_style());
                bars.total.set_length(*bytes_total);
                bars.total.set_position(*bytes_done);
                bars.total
                    .set_message(format!("{packs_done}/{packs_total} packs"));
            }
            _ => {}
        }
    }

    fn line(&self, event: &Event) -> String {
        if let Event::CheckProgress {
            packs_done,
            packs_total,
            bytes,
        } = event
        {
            return format!(
                "  {packs_done} of {packs_total} packs, {} read",
                human::bytes(*bytes)
            );
        }
        if let Event::CopyProgress {
            packs_done,
            packs_total,
            bytes_done,
            bytes_total,
        } = event
        {
            return format!(
                "  {packs_done} of {packs_total} packs, {} of {}",
                human::bytes(*bytes_done),
                human::bytes(*bytes_total)
            );
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let left = self.total_bytes.saturating_sub(self.done_bytes);
        let eta = if self.done_bytes > 0 && left > 0 {
            format!(
                ", about {} left",
                human::duration(seconds * left as f64 / self.done_bytes as f64)
            )
        } else {
            String::new()
        };
        format!(
            "  {}{} of about {}, {} of {} tables, {}{eta}",
            self.file.as_deref().unwrap_or_default(),
            human::bytes(self.done_bytes),
            human::bytes(self.total_bytes.max(self.done_bytes)),
            self.done_tables,
            self.total_tables,
            human::rate(self.done_bytes, seconds),
        )
    }
}

/// What came of one file of several; nothing where the failure says it.
fn file_line(result: &FileResult) -> Option<String> {
    match result {
        FileResult::Imported {
            backup,
            snapshot_time,
            data_bytes,
            new_bytes,
        } => Some(format!(
            "backup {} of {}, {}, {} new",
            &backup[..backup.len().min(8)],
            human::time(*snapshot_time),
            human::bytes(*data_bytes),
            human::bytes(*new_bytes)
        )),
        FileResult::AlreadyThere { backup } => Some(format!(
            "already there, as backup {}",
            &backup[..backup.len().min(8)]
        )),
        FileResult::Refused { reason } => Some(format!("refused: {reason}")),
        FileResult::Stopped => None,
    }
}

/// An estimate that is passed grows, so that a bar never claims to be full while bytes still come.
fn advance(bar: &ProgressBar, position: u64) {
    if bar.length().is_some_and(|length| position > length) {
        bar.set_length(position);
    }
    bar.set_position(position);
}

fn total_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn table_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "  {bar:28} {percent:>3}%  {decimal_bytes_per_sec:>12}  {eta:>4} left  {prefix}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}
