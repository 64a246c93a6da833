{{/* Flags and environment are those of gateway/engine/spec.py; a test compares them. */}}
{{- define "attest-gateway.engineContainer" -}}
name: engine
image: {{ include "attest-gateway.engineImage" . }}
imagePullPolicy: {{ .Values.engine.image.pullPolicy }}
command:
  {{- toYaml (list "python3" "-I" "-c" (include "attest-gateway.engineStart" .)) | nindent 2 }}
workingDir: /run/engine
args:
  {{- range .Values.engine.extraArgs }}
  - {{ . | quote }}
  {{- end }}
  - --uds=/run/attest/engine.sock
  - --model=/model
  - --served-model-name={{ .Values.model.servedName }}
  - --dtype={{ .Values.model.dtype }}
  {{- with int .Values.model.maxLength }}
  - --max-model-len={{ . }}
  {{- end }}
  - --load-format=attested
  - '--model-loader-extra-config={"reference": "/run/attest/reference.json", "report": "/run/attest/load-report.json"}'
  - --worker-extension-cls=gateway.engine.vllm_plugin.worker.AttestWorkerExtension
  - --generation-config=vllm
  - --no-enable-log-requests
  - --disable-uvicorn-access-log
  - --disable-fastapi-docs
  # Answers in flight end by themselves before the engine does.
  - --shutdown-timeout={{ .Values.drainSeconds }}
env:
  {{- range $name, $value := dict
    "PYTHONPATH" "/opt/attest-plugin/python"
    "VLLM_PLUGINS" "attested,attested_evidence"
    "VLLM_RPC_BASE_PATH" "/run/engine"
    "SAGEMAKER_MODEL_PATH" "/run/engine/absent"
    "HOME" "/run/engine"
    "TMPDIR" "/tmp"
    "LANG" "C.UTF-8"
    "PYTHONNOUSERSITE" "1"
    "PYTHONSAFEPATH" "1"
    "HF_HUB_OFFLINE" "1"
    "TRANSFORMERS_OFFLINE" "1"
    "DO_NOT_TRACK" "1"
    "VLLM_NO_USAGE_STATS" "1" }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  {{- with .Values.engine.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
resources:
  {{- toYaml .Values.engine.resources | nindent 2 }}
{{- $probe := list "python3" "-I" "-c" (include "attest-gateway.engineProbe" .) }}
startupProbe:
  exec:
    command:
      {{- toYaml $probe | nindent 6 }}
  timeoutSeconds: 10
  periodSeconds: 10
  failureThreshold: {{ div (add .Values.engine.startSeconds 9) 10 }}
livenessProbe:
  exec:
    command:
      {{- toYaml $probe | nindent 6 }}
  timeoutSeconds: 10
  periodSeconds: 30
  failureThreshold: 4
lifecycle:
  preStop:
    sleep:
      # Until no Service sends new questions here.
      seconds: 5
volumeMounts:
  {{- include "attest-gateway.weightsMount" . | nindent 2 }}
  - name: plugin
    mountPath: /opt/attest-plugin
    readOnly: true
  - name: engine-run
    mountPath: /run/attest
  - name: engine-home
    mountPath: /run/engine
  - name: engine-tmp
    mountPath: /tmp
  - name: shared-memory
    mountPath: /dev/shm
{{- end }}

{{/* The kubelet can't ask a Unix socket, and the image need not have curl. */}}
{{- define "attest-gateway.engineProbe" -}}
import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(8)
s.connect("/run/attest/engine.sock")
s.sendall(b"GET /health HTTP/1.0\r\n\r\n")
raise SystemExit(b" 200 " not in s.recv(64))
{{- end }}

{{/* vLLM can't bind to a socket file that a killed one left in the shared volume. */}}
{{- define "attest-gateway.engineStart" -}}
import os, pathlib, sys
pathlib.Path("/run/attest/engine.sock").unlink(missing_ok=True)
os.execvp("python3", ["python3", "-m", "vllm.entrypoints.launchers.api_server.entry", *sys.argv[1:]])
{{- end }}

{{- define "attest-gateway.pluginContainer" -}}
name: plugin
image: {{ include "attest-gateway.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# Into a folder of its own: the volume's root belongs to root.
args: [plugin, install, /opt/attest-plugin/python]
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
resources:
  requests:
    cpu: 100m
    memory: 128Mi
  limits:
    memory: 128Mi
volumeMounts:
  - name: plugin
    mountPath: /opt/attest-plugin
{{- end }}

{{- define "attest-gateway.downloadContainer" -}}
{{- $own := deepCopy .Values.weights.initContainer }}
{{- $mount := dict "name" "weights" "mountPath" "/model" }}
{{- with .Values.weights.subPath }}{{ $_ := set $mount "subPath" . }}{{ end }}
{{- $fixed := dict
  "name" "weights"
  "securityContext" .Values.containerSecurityContext
  "volumeMounts" (list $mount (dict "name" "tmp" "mountPath" "/tmp")) }}
{{- toYaml (mergeOverwrite $own $fixed) }}
{{- end }}
