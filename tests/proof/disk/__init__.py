"""Power cuts and failing disks, simulated: what a disk may do to the store, done to it on purpose.

    python -m tests.proof.disk [--cycles 200] [--faults all] [--json]

A C library (interposer.c) stands between a real process and its data folder. It keeps a journal of
every write, truncation, sync and change of a name in the order in which they happened, and it can
make calls fail. After the process was killed, model.py computes from the journal what a disk could
hold had the power failed at any moment of that life; the store is opened on it, and what it says
is judged by the checker (tests.proof.checker) against what the process had answered by then.

## What the model does
* What was written before a sync *began*, and the sync returned 0, is on the disk. Of the rest a
  random part is (seeded): none, all, all up to a moment, or each write by itself, whole or torn
  into runs of 512-byte sectors. Truncations likewise. The write that was under way is one of them.
* After a sync that failed the kernel may have dropped the pages: what that sync was to write is
  on the disk or not, by chance, and no later sync brings it back.
* Names (made, removed, renamed) count as unsynced until the *folder* is synced, as POSIX has it;
  of the rest the first few survive, as journalling file systems keep the order of such changes.
  Syncing a file does not save its name.
* SQLite's ``-shm`` is left out: it is made anew after a crash, by design.

## What it does not
* Sectors that change although nobody wrote to them, bits that rot, a disk that lies about a sync
  (nothing but a second disk helps there).
* Memory-mapped files, `fallocate`, `dup` of a data file, folders within the folder: none is used.
  Were one used, the journal would say so and the run would fail instead of passing quietly.
* Threads that write while another syncs: what they write then counts as not synced by it.
"""
