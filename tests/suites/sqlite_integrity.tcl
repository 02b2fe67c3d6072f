# testfixture sqlite_integrity.tcl FILE...: what SQLite says of each database.
#
# One line per file: "ok", "unknown" where the database needs functions or
# collations that only the test had that made it, or what is wrong.  One page is
# never used, and a test may have moved it: it must be right with one of the two.
proc check {file pending_byte} {
  sqlite3_test_control_pending_byte $pending_byte
  sqlite3 db $file
  if {[catch {db eval {PRAGMA integrity_check(1)}} said]} {
    if {[regexp {no such|unknown|unable to} $said]} {set said unknown}
  }
  db close
  return [string map {\n { }} $said]
}

foreach file $argv {
  set said [check $file 0x0010000]
  if {$said ni {ok unknown}} {set said [check $file 0x40000000]}
  puts "$file: $said"
}
