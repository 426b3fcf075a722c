package clientapi

// tables are the route lists, one beside the handlers of each noun.
var tables = [][]route{
	accountRoutes,
	accountDataRoutes,
	adminRoutes,
	deviceRoutes,
	filterRoutes,
	loginRoutes,
	profileRoutes,
	pushRuleRoutes,
	pusherRoutes,
	registerRoutes,
	serverRoutes,
	tagRoutes,
}
