# Asks GitHub's API; sourced by the workflows, which set GITHUB_TOKEN.
# shellcheck shell=bash

# api METHOD PATH [OPTIONS OF CURL]: the answer on stdout. The token goes by stdin, not by argv.
api() {
  curl --silent --show-error --fail-with-body --request "$1" \
    --header @- --header 'Accept: application/vnd.github+json' --header 'X-GitHub-Api-Version: 2022-11-28' \
    "${@:3}" "$GITHUB_API_URL/repos/$GITHUB_REPOSITORY/$2" <<< "Authorization: Bearer $GITHUB_TOKEN"
}

# ours LIST MARKER: what a workflow of this repository has written with MARKER as its first line.
# Prints the key `.id` of a comment or `.number` of an issue, or nothing. LIST ends in a query.
ours() {
  local page=1 count=100 answer found=''
  while [ -z "$found" ] && [ "$count" -eq 100 ]; do
    answer=$(api GET "$1&per_page=100&page=$page" --retry 3) || return
    found=$(jq --raw-output --arg marker "$2" 'map(select(
        .user.login == "github-actions[bot]" and ((.body // "") | startswith($marker + "\n"))
      ))[0] | (.number // .id // empty)' <<< "$answer") || return
    count=$(jq length <<< "$answer") || return
    page=$((page + 1))
  done
  echo "$found"
}

# fenced FILE: its text as Markdown shows it unchanged, within what a comment may hold.
fenced() {
  jq --raw-input --slurp --raw-output '
    (if length > 60000 then .[:60000] + "\n[... the rest is in the log]" else . end)
    | (([match("~+"; "g").length] + [2] | max + 1) * "~") as $fence
    | "\($fence)\n\(rtrimstr("\n"))\n\($fence)"' "$1"
}

# The page of this run.
run_page() {
  echo "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
}
