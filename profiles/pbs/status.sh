#!/bin/sh
# status.sh ID: print running, success or failed.
# A job is over when it left its exit code, or when PBS does not know it any more and no code appears for a minute
# (it was killed). While the server does not answer, a job counts as running.
id=$1
logs=results/pbs_logs
patience=${DUBITO_STATUS_PATIENCE_S:-60}
verdict() {
  rm -f "$logs/$id.gone"
  if [ "$1" = 0 ]; then echo success; else echo failed; fi
  exit 0
}
ls "$logs" >/dev/null 2>&1 # makes NFS look again
[ -s "$logs/$id.exit" ] && verdict "$(cat "$logs/$id.exit")"
said=$(qstat "$id" 2>&1) && {
  rm -f "$logs/$id.gone"
  echo running
  exit 0
}
case $said in
  *"known Job"* | *"has finished"*)
    now=$(date +%s)
    [ -s "$logs/$id.gone" ] || echo "$now" >"$logs/$id.gone"
    since=$(cat "$logs/$id.gone")
    [ $((now - since)) -ge "$patience" ] && verdict 1
    ;;
esac
echo running
