{{/* The gateway's settings file. Unknown names make the gateway refuse to start. */}}
{{- define "attest-gateway.config" -}}
{{- $settings := dict
  "threshold" (int .Values.trust.threshold)
  "signer" (default (printf "file:/etc/attest/signer/%s" .Values.signer.existingSecretKey) .Values.signer.uri)
  "gateway_id" (default (printf "urn:attest-gateway:%s:%s" .Release.Namespace (include "attest-gateway.fullname" .)) .Values.gatewayId)
  "host" "0.0.0.0"
  "port" 8000
  "state_dir" "/var/lib/attest" }}
{{- if gt (int .Values.gateway.workers) 1 }}{{ $_ := set $settings "workers" (int .Values.gateway.workers) }}{{ end }}
{{- if .Values.metrics.podMonitor.enabled }}{{ $_ := set $settings "metrics_port" 9464 }}{{ end }}
{{- if include "attest-gateway.hasWeights" . }}{{ $_ := set $settings "model" "/model" }}{{ end }}
{{- $files := .Values.trust.files }}
{{- if .Values.trust.authorities }}{{ $files = keys .Values.trust.authorities | sortAlpha }}{{ end }}
{{- $authority := list }}
{{- range $files }}{{ $authority = append $authority (printf "/etc/attest/authorities/%s" .) }}{{ end }}
{{- $_ := set $settings "authority" $authority }}
{{- with .Values.model.manifest }}{{ $_ := set $settings "manifest" . }}{{ end }}
{{- with .Values.model.servedName }}{{ $_ := set $settings "served_model_name" . }}{{ end }}
{{- if .Values.apiKeys.existingSecret }}
{{- $_ := set $settings "api_keys_file" (printf "/etc/attest/api-keys/%s" .Values.apiKeys.existingSecretKey) }}
{{- end }}
{{- if .Values.postgres.existingSecret }}
{{- $_ := set $settings "postgres_dsn_file" (printf "/etc/attest/postgres/%s" .Values.postgres.existingSecretKey) }}
{{- end }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $settings "tls" (dict "certificate" "/etc/attest/tls/tls.crt" "key" "/etc/attest/tls/tls.key") }}
{{- end }}
{{- if .Values.log.existingSecret }}
{{- $_ := set $settings "log_key" (printf "/etc/attest/log/%s" .Values.log.existingSecretKey) }}
{{- with .Values.log.origin }}{{ $_ := set $settings "log_origin" . }}{{ end }}
{{- with .Values.log.witnesses }}{{ $_ := set $settings "log_witnesses" . }}{{ end }}
{{- end }}
{{- $engine := dict "start_timeout_seconds" (int .Values.engine.startSeconds) }}
{{- with .Values.model.dtype }}{{ $_ := set $engine "dtype" . }}{{ end }}
{{- if eq .Values.mode "managed" }}
{{- with .Values.engine.extraArgs }}{{ $_ := set $engine "extra_args" . }}{{ end }}
{{- with int .Values.model.maxLength }}{{ $_ := set $engine "max_model_len" . }}{{ end }}
{{- else if eq .Values.mode "sidecar" }}
{{- $_ := set $settings "upstream" "unix:/run/attest/engine.sock" }}
{{- $_ := set $settings "reference_file" "/run/attest/reference.json" }}
{{- $_ := set $settings "load_report" "/run/attest/load-report.json" }}
{{- else }}
{{- $_ := set $settings "upstream" .Values.proxy.upstream }}
{{- end }}
{{- $_ := set $settings "engine" $engine }}
{{- toYaml (mergeOverwrite $settings (deepCopy .Values.config)) }}
{{- end }}
