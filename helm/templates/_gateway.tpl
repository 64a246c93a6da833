{{- define "attest-gateway.gatewayContainer" -}}
name: gateway
image: {{ include "attest-gateway.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/attest/config/config.yaml]
ports:
  - name: http
    containerPort: 8000
  {{- if .Values.metrics.podMonitor.enabled }}
  - name: metrics
    containerPort: 9464
  {{- end }}
{{- with .Values.gateway.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
resources:
  {{- toYaml .Values.gateway.resources | nindent 2 }}
{{- include "attest-gateway.gatewayProbes" . }}
volumeMounts:
  {{- if include "attest-gateway.hasWeights" . }}
  {{- include "attest-gateway.weightsMount" . | nindent 2 }}
  {{- end }}
  - name: config
    mountPath: /etc/attest/config
    readOnly: true
  - name: authorities
    mountPath: /etc/attest/authorities
    readOnly: true
  {{- if .Values.signer.existingSecret }}
  - name: signer
    mountPath: /etc/attest/signer
    readOnly: true
  {{- end }}
  {{- if .Values.postgres.existingSecret }}
  - name: postgres
    mountPath: /etc/attest/postgres
    readOnly: true
  {{- end }}
  {{- if .Values.tls.existingSecret }}
  - name: tls
    mountPath: /etc/attest/tls
    readOnly: true
  {{- end }}
  {{- if .Values.apiKeys.existingSecret }}
  - name: api-keys
    mountPath: /etc/attest/api-keys
    readOnly: true
  {{- end }}
  {{- if .Values.log.existingSecret }}
  - name: log
    mountPath: /etc/attest/log
    readOnly: true
  {{- end }}
  - name: state
    mountPath: /var/lib/attest
  - name: tmp
    mountPath: /tmp
  {{- if eq .Values.mode "sidecar" }}
  - name: engine-run
    mountPath: /run/attest
  {{- else if eq .Values.mode "managed" }}
  - name: shared-memory
    mountPath: /dev/shm
  {{- end }}
  {{- with .Values.gateway.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
Hashing comes first and is slow. In `sidecar` start-up is through once the files are
checked: the kubelet starts the engine then. In the other modes it waits for the engine.
*/}}
{{- define "attest-gateway.probeScheme" }}
{{- if .Values.tls.existingSecret }}scheme: HTTPS{{ else }}scheme: HTTP{{ end }}
{{- end }}

{{- define "attest-gateway.gatewayProbes" }}
{{- $seconds := int .Values.weights.verifySeconds }}
{{- if ne .Values.mode "sidecar" }}{{ $seconds = add $seconds (int .Values.engine.startSeconds) }}{{ end }}
startupProbe:
  httpGet:
    path: {{ eq .Values.mode "sidecar" | ternary "/startupz" "/readyz" }}
    port: http
    {{- include "attest-gateway.probeScheme" . | nindent 4 }}
  periodSeconds: 10
  failureThreshold: {{ div (add $seconds 9) 10 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
    {{- include "attest-gateway.probeScheme" . | nindent 4 }}
  periodSeconds: 5
livenessProbe:
  httpGet:
    # Not /readyz: an engine that ends is verified anew without hashing here again, and
    # a model that was changed must stay refused until somebody has looked.
    path: /healthz
    port: http
    {{- include "attest-gateway.probeScheme" . | nindent 4 }}
  periodSeconds: 10
  failureThreshold: 6
{{- end }}
