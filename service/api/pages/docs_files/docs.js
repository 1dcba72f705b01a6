// Swagger UI over this service's own document. The key that is typed in stays in this page and goes to this service
// alone: it is written nowhere, and nothing of the page comes from, or goes to, anywhere else.
window.addEventListener("load", () => {
  window.SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    persistAuthorization: false,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
    presets: [window.SwaggerUIBundle.presets.apis],
    onComplete: () => document.documentElement.setAttribute("data-ready", ""),
  });
});
