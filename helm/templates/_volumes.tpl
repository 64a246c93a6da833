{{- define "attest-gateway.volumes" -}}
{{- if include "attest-gateway.hasWeights" . }}
- name: weights
  {{- with .Values.weights }}
  {{- if .existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .existingClaim }}
    readOnly: true
  {{- else if .image.reference }}
  image:
    {{- toYaml .image | nindent 4 }}
  {{- else if .csi }}
  csi:
    {{- toYaml (mergeOverwrite (deepCopy .csi) (dict "readOnly" true)) | nindent 4 }}
  {{- else }}
  emptyDir: {}
  {{- end }}
  {{- end }}
{{- end }}
- name: config
  configMap:
    name: {{ include "attest-gateway.fullname" . }}
- name: authorities
  configMap:
    name: {{ default (printf "%s-authorities" (include "attest-gateway.fullname" .)) .Values.trust.existingConfigMap }}
    {{- with .Values.trust.files }}
    items:
      {{- range . }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
    {{- end }}
{{- $secrets := list
  (dict "volume" "signer" "from" .Values.signer)
  (dict "volume" "postgres" "from" .Values.postgres)
  (dict "volume" "api-keys" "from" .Values.apiKeys)
  (dict "volume" "log" "from" .Values.log) }}
{{- range $secrets }}
{{- if .from.existingSecret }}
- name: {{ .volume }}
  secret:
    secretName: {{ .from.existingSecret }}
    # Of the file's group, which is the pod's fsGroup; nobody else reads it.
    defaultMode: 0440
    items:
      - key: {{ .from.existingSecretKey }}
        path: {{ .from.existingSecretKey }}
{{- end }}
{{- end }}
{{- if .Values.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ .Values.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
- name: tmp
  emptyDir: {}
{{- if not .Values.persistence.enabled }}
- name: state
  emptyDir: {}
{{- end }}
{{- if eq .Values.mode "sidecar" }}
- name: engine-run
  emptyDir: {}
- name: engine-home
  emptyDir: {}
- name: engine-tmp
  emptyDir: {}
- name: plugin
  emptyDir: {}
{{- end }}
{{- if ne .Values.mode "proxy" }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.engine.sharedMemory }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "attest-gateway.weightsMount" -}}
- name: weights
  mountPath: /model
  {{- with .Values.weights.subPath }}
  subPath: {{ . }}
  {{- end }}
  readOnly: true
{{- end }}
